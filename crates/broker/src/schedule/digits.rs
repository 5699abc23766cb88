//! The lane of a due time in a schedule: by the highest of its digits in which it differs from the base.
//!
//! Times are numbers of sixteen digits of four bits. The lane (level, digit) holds the times that share all digits
//! above that level with the base, and have that digit there. So the lanes of level 0 are a millisecond wide, those of
//! level 3 four seconds, those of level 6 nearly five hours; each horizon has its lane, and lanes of lower levels come
//! first.

use ferrymq_model::Time;

const DIGIT_BITS: u32 = 4;
const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;

/// The lane of a time after `base`.
pub(super) fn lane_of(base: Time, due: Time) -> u8 {
    debug_assert!(base < due, "{due:?} does not lie behind {base:?}");
    let level = (base.0 ^ due.0).max(1).ilog2() / DIGIT_BITS;
    let digit = (due.0 >> (level * DIGIT_BITS)) & DIGIT_MASK;
    (level as u8) << DIGIT_BITS | digit as u8
}

/// The first time of the lane that contains `due`.
pub(super) fn start_of(lane: u8, due: Time) -> Time {
    Time(due.0 & !last_digits(lane))
}

/// The last time of the lane that contains `due`.
pub(super) fn end_of(lane: u8, due: Time) -> Time {
    Time(due.0 | last_digits(lane))
}

/// Whether all times in this lane are the same.
pub(super) fn is_finest(lane: u8) -> bool {
    last_digits(lane) == 0
}

/// The digits below the lane's level, all of them set.
fn last_digits(lane: u8) -> u64 {
    let level = u32::from(lane) >> DIGIT_BITS;
    (1_u64 << (level * DIGIT_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_digit_that_differs_decides() {
        let lane = |base: u64, due: u64| lane_of(Time(base), Time(due));
        assert_eq!(lane(0x1000, 0x1001), 0x01);
        assert_eq!(lane(0x1000, 0x100f), 0x0f);
        assert_eq!(lane(0x1000, 0x1010), 0x11);
        assert_eq!(lane(0x1fff, 0x2000), 0x32);
        assert_eq!(lane(0, u64::MAX), 0xff);
        assert_eq!(start_of(0x32, Time(0x2abc)), Time(0x2000));
        assert_eq!(end_of(0x32, Time(0x2abc)), Time(0x2fff));
        assert_eq!(start_of(0xff, Time(u64::MAX)), Time(0xf << 60));
        assert!(is_finest(0x07) && !is_finest(0x11));
    }

    /// The content of a lane stays correct while the base comes nearer to it, and moves to finer lanes once the
    /// base has reached its first time.
    #[test]
    fn lanes_hold_until_the_base_comes_to_them() {
        let mut seed = 11_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 20
        };
        for _ in 0..20_000 {
            let base = random() % 1_000_000;
            let due = base + 1 + random() % (1 << (random() % 40));
            let lane = lane_of(Time(base), Time(due));
            let start = start_of(lane, Time(due)).0;
            assert!(base < start && start <= due && due <= end_of(lane, Time(due)).0);
            let nearer = base + random() % (start - base);
            assert_eq!(lane_of(Time(nearer), Time(due)), lane);
            if start < due {
                assert!(lane_of(Time(start), Time(due)) >> 4 < lane >> 4);
            }
        }
    }
}
