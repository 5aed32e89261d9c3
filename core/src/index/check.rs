//! What a record must be to be stored and to travel: limits, and bookkeeping that does not contradict itself. Both
//! the wire's reader and the author ask here, so that nobody makes what others refuse.

use crate::error::Malformed;
use crate::index::clock::REV_MAX;
use crate::index::record::{EntryContent, EntryValue, Meta, Record, Value};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// The longest target of a symbolic link, in bytes.
pub const LINK_BYTES_MAX: usize = 4096;
/// The longest value, in bytes of canonical JSON; of a directory's value only the unknown members count.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest meta, in bytes of canonical JSON; only the unknown members count.
pub const META_BYTES_MAX: usize = 4096;
/// The largest file, in bytes.
pub const SIZE_MAX: u64 = 1 << 62;
/// All permission bits.
pub const UNIX_MODE_MAX: u32 = 0o7777;

/// Names the first rule that the record breaks.
pub fn check(record: &Record) -> Result<(), Malformed> {
    check_limits(record)?;
    check_bookkeeping(record)
}

/// Names the first limit that the record passes.
pub fn check_limits(record: &Record) -> Result<(), Malformed> {
    if record.key.len() > KEY_BYTES_MAX {
        return Err(Malformed("record: key too long"));
    }
    check_value(&record.value)?;
    check_meta(&record.meta)?;
    if !record.clock.fits() || !record.value_clock.fits() || !record.deleted_clock.fits() {
        return Err(Malformed("record: clock with too many peers"));
    }
    Ok(())
}

fn check_value(value: &Value) -> Result<(), Malformed> {
    let too_long = Err(Malformed("record: value too long"));
    match value {
        Value::Null => Ok(()),
        Value::Json(json) if json.len() > VALUE_BYTES_MAX => too_long,
        Value::Json(_) => Ok(()),
        Value::Entry(EntryValue { extra: Some(extra), .. }) if extra.len() > VALUE_BYTES_MAX => too_long,
        Value::Entry(entry) => match &entry.content {
            EntryContent::Link(target) if target.len() > LINK_BYTES_MAX => {
                Err(Malformed("record: link target too long"))
            }
            EntryContent::File { size, .. } if *size > SIZE_MAX => Err(Malformed("record: size too large")),
            EntryContent::Dir | EntryContent::Link(_) | EntryContent::File { .. } => Ok(()),
        },
    }
}

fn check_meta(meta: &Meta) -> Result<(), Malformed> {
    if meta.unix_mode.is_some_and(|mode| mode > UNIX_MODE_MAX) {
        return Err(Malformed("record: unix_mode beyond the permission bits"));
    }
    if meta.extra.as_ref().is_some_and(|extra| extra.len() > META_BYTES_MAX) {
        return Err(Malformed("record: meta too long"));
    }
    Ok(())
}

/// The clocks and changes of any version that was authored or joined by the rules of protocol §7 hold these.
fn check_bookkeeping(record: &Record) -> Result<(), Malformed> {
    let Record { clock, update, .. } = record;
    let changes = [update, &record.key_change, &record.value_change, &record.meta_change];
    if changes.iter().any(|change| !(1..=REV_MAX).contains(&change.rev)) {
        return Err(Malformed("record: revision out of range"));
    }
    if !changes.iter().all(|change| change.seen_by(clock)) {
        return Err(Malformed("record: change that its clock has not seen"));
    }
    if changes.iter().any(|change| *change > update) {
        return Err(Malformed("record: change later than the last update"));
    }
    if !record.value_change.seen_by(&record.value_clock) {
        return Err(Malformed("record: value_clock has not seen the value"));
    }
    if !clock.covers(&record.value_clock) {
        return Err(Malformed("record: value_clock beyond the clock"));
    }
    if !clock.covers(&record.deleted_clock) {
        return Err(Malformed("record: deleted_clock beyond the clock"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Sha256;
    use crate::index::clock::{Clock, PEERS_MAX};
    use crate::index::record::EntryValue;
    use crate::index::testing::{author, file, nth_peer, peer};
    use alloc::string::String;

    /// Changes a good record and says which rule it then breaks; empty for none.
    fn broken(change: impl FnOnce(&mut Record)) -> &'static str {
        let mut record = file(&mut author(1), "/a", 1);
        assert_eq!(check(&record), Ok(()));
        change(&mut record);
        check(&record).err().map_or("", |e| e.0)
    }

    fn text(len: usize) -> String {
        "x".repeat(len)
    }

    #[test]
    fn each_limit_at_it_and_past_it() {
        assert_eq!(broken(|r| r.key = text(KEY_BYTES_MAX)), "");
        assert_eq!(broken(|r| r.key = text(KEY_BYTES_MAX + 1)), "record: key too long");
        let json = |len: usize| Value::Json(text(len).into());
        assert_eq!(broken(|r| r.value = json(VALUE_BYTES_MAX)), "");
        assert_eq!(broken(|r| r.value = json(VALUE_BYTES_MAX + 1)), "record: value too long");
        let link = |len: usize| Value::Entry(EntryValue::new(EntryContent::Link(text(len))));
        assert_eq!(broken(|r| r.value = link(LINK_BYTES_MAX)), "");
        assert_eq!(broken(|r| r.value = link(LINK_BYTES_MAX + 1)), "record: link target too long");
        let size = |size| Value::Entry(EntryValue::new(EntryContent::File { size, sha256: Sha256([1; 32]) }));
        assert_eq!(broken(|r| r.value = size(SIZE_MAX)), "");
        assert_eq!(broken(|r| r.value = size(SIZE_MAX + 1)), "record: size too large");
        let extra = |len: usize| Some(text(len).into());
        let value =
            |len| Value::Entry(EntryValue { extra: extra(len), ..EntryValue::new(EntryContent::Dir) });
        assert_eq!(broken(|r| r.value = value(VALUE_BYTES_MAX)), "");
        assert_eq!(broken(|r| r.value = value(VALUE_BYTES_MAX + 1)), "record: value too long");
        assert_eq!(broken(|r| r.meta.extra = extra(META_BYTES_MAX)), "");
        assert_eq!(broken(|r| r.meta.extra = extra(META_BYTES_MAX + 1)), "record: meta too long");
        assert_eq!(broken(|r| r.meta.unix_mode = Some(UNIX_MODE_MAX)), "");
        assert_eq!(
            broken(|r| r.meta.unix_mode = Some(UNIX_MODE_MAX + 1)),
            "record: unix_mode beyond the permission bits"
        );
        let many = |n: usize| (0..n).fold(Clock::new(), |mut c, i| (c.set(nth_peer(i), 1), c).1);
        let at = |n: usize| move |r: &mut Record| r.clock.join(&many(n - 1));
        assert_eq!(broken(at(PEERS_MAX)), "");
        assert_eq!(broken(at(PEERS_MAX + 1)), "record: clock with too many peers");
    }

    #[test]
    fn contradictions_are_named() {
        let unseen = "record: change that its clock has not seen";
        assert_eq!(broken(|r| r.update.rev += 1), unseen);
        assert_eq!(broken(|r| r.key_change.rev += 1), unseen);
        assert_eq!(broken(|r| r.value_change.peer = peer(2)), unseen);
        assert_eq!(broken(|r| r.meta_change.rev += 1), unseen);
        assert_eq!(broken(|r| r.update.rev = 0), "record: revision out of range");
        assert_eq!(broken(|r| r.key_change.time.0 += 1), "record: change later than the last update");
        assert_eq!(broken(|r| r.value_clock = Clock::new()), "record: value_clock has not seen the value");
        assert_eq!(broken(|r| r.value_clock.set(peer(2), 1)), "record: value_clock beyond the clock");
        assert_eq!(broken(|r| r.deleted_clock.set(peer(2), 1)), "record: deleted_clock beyond the clock");
    }
}
