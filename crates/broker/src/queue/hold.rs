//! Messages that a prepared transaction settles, after a restart.

use super::lanes::lane_of;
use super::{SequenceRange, Shard};

impl Shard {
    /// A prepared transaction settles these messages: they are not ready until it is decided. Returns those that are
    /// there: transient ones are lost in a restart.
    pub fn hold(&mut self, range: SequenceRange) -> Vec<SequenceRange> {
        let SequenceRange { queue: lane_id, first, last, body_bytes } = range;
        let Some(queue) = self.queues.get_mut(&lane_id.queue()) else { return Vec::new() };
        // They were delivered after their last delay, so one that is not over means that the clock was set back.
        queue.end_delays(lane_of(lane_id), first, last);
        let lane = queue.lanes.get_mut(lane_of(lane_id));
        let each = body_bytes / (last - first + 1);
        let held = lane.hold(first, last).into_iter().map(|(first, last)| {
            let body_bytes = each * (last - first + 1);
            SequenceRange { queue: lane_id, first, last, body_bytes }
        });
        let held: Vec<SequenceRange> = held.collect();
        for SequenceRange { first, last, body_bytes, .. } in &held {
            let messages = last - first + 1;
            queue.ready -= messages;
            queue.ready_bytes = queue.ready_bytes.saturating_sub(*body_bytes);
            queue.unacked += messages;
            queue.unacked_bytes += body_bytes;
        }
        held
    }
}
