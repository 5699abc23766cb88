//! Reads strace's log, and finds confirms that were sent before their message was synced.
//!
//! A line is one system call. If the call of another thread comes in between, the call has two lines. The order of the
//! lines is the time: a call begins at its first line and has ended at its last line.
//!
//! ```text
//! 41  pwritev(9, [{iov_base="\x46\x4d...", iov_len=128}, ...], 3, 8192) = 4096
//! 41  fdatasync(9 <unfinished ...>
//! 40  sendto(12, "\x01\x00\x01...", 21, MSG_NOSIGNAL, NULL, 0) = 21
//! 41  <... fdatasync resumed>) = 0
//! ```

use std::collections::{HashMap, HashSet};

/// The counts of a log without a fault.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub confirms: u64,
    pub socket_writes: u64,
    pub syncs: u64,
}

/// Checks that all messages were written to a file and synced before they were confirmed. `marks` has the marks of the
/// messages in the order of their tags, from 1. All of them must be confirmed in the log.
pub fn check(log: &str, marks: &[String]) -> Result<Checked, String> {
    let marks_by_octets = marks.iter().enumerate().map(|(message, mark)| (mark.as_bytes(), message)).collect();
    let mut watch = Watch { marks: marks_by_octets, ..Watch::default() };
    let mut unfinished: HashMap<&str, (&str, usize)> = HashMap::new();
    for (at, line) in log.lines().enumerate() {
        let Some((thread, call)) = line.trim_start().split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (begun, at));
            watch.begins(begun, at)?;
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            let Some((begun, begun_at)) = unfinished.remove(thread) else { continue };
            watch.ends(&format!("{begun}{rest}"), begun_at, at);
        } else {
            watch.begins(call, at)?;
            watch.ends(call, at, at);
        }
    }
    if watch.confirmed < marks.len() {
        return Err(format!("the log shows {} confirms for {} messages", watch.confirmed, marks.len()));
    }
    Ok(watch.checked)
}

#[derive(Default)]
struct Watch<'a> {
    /// Each message's mark, with its position in the order of tags. All marks have the same length.
    marks: HashMap<&'a [u8], usize>,
    /// For each message that was written and not synced: the file, and the line at which the write had ended.
    written: HashMap<usize, (i32, usize)>,
    synced: HashSet<usize>,
    /// Messages up to this one are confirmed.
    confirmed: usize,
    checked: Checked,
}

impl Watch<'_> {
    /// A call begins. A confirm counts from the moment when its write begins.
    fn begins(&mut self, call: &str, at: usize) -> Result<(), String> {
        if !is_socket_write(call) {
            return Ok(());
        }
        let before = self.checked.confirms;
        for (tag, multiple) in confirms(&octets(call)) {
            self.checked.confirms += 1;
            let tag = usize::try_from(tag).map_err(|why| why.to_string())?;
            let first = if multiple { self.confirmed + 1 } else { tag };
            for message in first..=tag {
                if !self.synced.contains(&(message - 1)) {
                    return Err(format!("line {}: message {message} is confirmed and was not synced", at + 1));
                }
            }
            self.confirmed = self.confirmed.max(tag);
        }
        self.checked.socket_writes += u64::from(self.checked.confirms > before);
        Ok(())
    }

    /// A call ends. A write to a file counts when it has ended. A sync counts when it has ended, for the writes that
    /// had ended when it began.
    fn ends(&mut self, call: &str, begun_at: usize, ended_at: usize) {
        let Some((name, arguments)) = call.split_once('(') else { return };
        let file = descriptor(arguments).unwrap_or(-1);
        let worked = call.rsplit_once("= ").and_then(|(_, result)| result.trim().parse::<i64>().ok());
        match name {
            "pwrite64" | "pwritev" | "pwritev2" => {
                for message in self.messages_in(&octets(call)) {
                    if !self.synced.contains(&message) {
                        self.written.insert(message, (file, ended_at));
                    }
                }
            }
            "fsync" | "fdatasync" if worked == Some(0) => {
                self.checked.syncs += 1;
                let synced = &mut self.synced;
                self.written.retain(|message, (into, ended)| {
                    let covered = *into == file && *ended <= begun_at;
                    if covered {
                        synced.insert(*message);
                    }
                    !covered
                });
            }
            _ => {}
        }
    }
}

impl Watch<'_> {
    fn messages_in(&self, octets: &[u8]) -> Vec<usize> {
        let Some(length) = self.marks.keys().next().map(|mark| mark.len()) else { return Vec::new() };
        // No mark begins with a zero, and the empty files of the journal are megabytes of zeros.
        let may_start = |window: &&[u8]| window[0] != 0;
        octets.windows(length).filter(may_start).filter_map(|window| self.marks.get(window).copied()).collect()
    }
}

fn is_socket_write(call: &str) -> bool {
    ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|name| call.starts_with(name))
}

fn descriptor(arguments: &str) -> Option<i32> {
    let digits = arguments.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(arguments.len());
    arguments[..digits].parse().ok()
}

/// All octets of a call's strings, one string after the other.
fn octets(call: &str) -> Vec<u8> {
    call.split('"').skip(1).step_by(2).flat_map(|text| text.split("\\x").skip(1)).filter_map(octet).collect()
}

fn octet(hexadecimal: &str) -> Option<u8> {
    u8::from_str_radix(hexadecimal.get(..2)?, 16).ok()
}

/// The basic.ack frames in the octets that the server sent: the tag, and whether all tags up to it are confirmed.
fn confirms(octets: &[u8]) -> Vec<(u64, bool)> {
    const ACK: [u8; 11] = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];
    let frames = octets.windows(ACK.len() + 10).filter(|frame| frame.starts_with(&ACK) && frame.ends_with(&[0xCE]));
    let tag = |frame: &[u8]| u64::from_be_bytes(*frame[ACK.len()..].first_chunk().expect("the window is long enough"));
    frames.map(|frame| (tag(frame), frame[ACK.len() + 8] & 1 != 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE_BOTH: &str =
        r#"7 pwritev(9, [{iov_base="\x00\x61\x61", iov_len=3}, {iov_base="\x62\x62", iov_len=2}], 2, 0) = 5"#;
    const SYNC: &str = "7 fdatasync(9) = 0";

    /// A basic.ack on channel 1.
    fn confirm(tag: u8, multiple: bool) -> String {
        let tag = format!(r"\x{tag:02x}\x{:02x}", u8::from(multiple));
        let head = r"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00";
        format!(r#"8 sendto(12, "{head}{tag}\xce", 21, MSG_NOSIGNAL, NULL, 0) = 21"#)
    }

    /// Checks a log for two messages with the marks `aa` and `bb`.
    fn judge(lines: &[&str]) -> Result<Checked, String> {
        check(&lines.join("\n"), &["aa".to_owned(), "bb".to_owned()])
    }

    #[test]
    fn synced_and_then_confirmed_is_good() {
        let good = judge(&[WRITE_BOTH, SYNC, &confirm(2, true)]);
        assert_eq!(good, Ok(Checked { confirms: 1, socket_writes: 1, syncs: 1 }));
        assert!(judge(&[WRITE_BOTH, SYNC, &confirm(1, false), &confirm(2, false)]).is_ok());
    }

    #[test]
    fn a_confirm_before_the_sync_is_found() {
        let bad = judge(&[WRITE_BOTH, &confirm(2, true), SYNC]).unwrap_err();
        assert_eq!(bad, "line 2: message 1 is confirmed and was not synced");
        assert!(judge(&[WRITE_BOTH, &confirm(2, false), SYNC, &confirm(1, false)]).is_err());
    }

    #[test]
    fn a_confirm_without_any_write_or_with_a_failed_sync_is_found() {
        assert!(judge(&[SYNC, &confirm(2, true)]).is_err());
        let failed = "7 fdatasync(9) = -1 EIO (Input/output error)";
        assert!(judge(&[WRITE_BOTH, failed, &confirm(2, true)]).is_err());
    }

    #[test]
    fn the_sync_of_another_file_does_not_cover() {
        assert!(judge(&[WRITE_BOTH, "7 fdatasync(10) = 0", &confirm(2, true)]).is_err());
    }

    #[test]
    fn a_sync_that_has_not_returned_does_not_cover() {
        let (begun, ended) = ("7 fdatasync(9 <unfinished ...>", "7 <... fdatasync resumed>) = 0");
        assert!(judge(&[WRITE_BOTH, begun, &confirm(2, true), ended]).is_err());
        assert!(judge(&[WRITE_BOTH, begun, ended, &confirm(2, true)]).is_ok());
    }

    #[test]
    fn a_sync_that_began_before_the_write_had_ended_does_not_cover() {
        let (begun, ended) = ("7 fdatasync(9 <unfinished ...>", "7 <... fdatasync resumed>) = 0");
        let write = WRITE_BOTH.replace("7 ", "6 ");
        assert!(judge(&[begun, &write, ended, &confirm(2, true)]).is_err());
    }

    #[test]
    fn a_log_without_all_confirms_proves_nothing() {
        assert!(judge(&[WRITE_BOTH, SYNC, &confirm(1, false)]).is_err());
        assert!(judge(&[]).is_err());
    }
}
