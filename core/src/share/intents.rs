//! The stored form of what a group of installs is about to put at which paths. After a crash it tells content that an
//! install had just put there from a user's edit (sync.md, "Bringing a path to a version"), and the temp tells
//! whether it was put there at all.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::TempId;
use crate::index::codec::{Damaged, PeerTable, decode_record, encode_record};
use crate::index::record::Record;

/// One install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Where to.
    pub path: RelPath,
    /// What is put there; the temp is there until then, and until this row is gone where it is not put there.
    pub temp: TempId,
    /// The version that it is.
    pub version: Arc<Record>,
}

/// One row for all installs of a group.
pub fn encode<'a>(
    items: impl Iterator<Item = (&'a RelPath, TempId, &'a Record)>,
    peers: &PeerTable,
) -> Vec<u8> {
    // The versions came from the database, so the table has their peers.
    let mut known = peers.clone();
    let mut value = Vec::new();
    for (path, temp, version) in items {
        // A path has at most 4096 bytes.
        value.extend_from_slice(&(path.as_str().len() as u16).to_be_bytes());
        value.extend_from_slice(path.as_str().as_bytes());
        value.extend_from_slice(&temp.0.to_be_bytes());
        encode_record(version, &mut known, &mut value);
    }
    value
}

/// Reads what [`encode`] wrote.
pub fn decode(mut value: &[u8], peers: &PeerTable) -> Result<Vec<Intent>, Damaged> {
    let mut items = Vec::new();
    while !value.is_empty() {
        let (len, rest) = value.split_first_chunk::<2>().ok_or(Damaged)?;
        let (path, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or(Damaged)?;
        let path = core::str::from_utf8(path).ok().and_then(RelPath::new).ok_or(Damaged)?;
        let (temp, rest) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
        value = rest;
        let version = Arc::new(decode_record(&mut value, peers)?);
        items.push(Intent { path, temp: TempId(u64::from_be_bytes(*temp)), version });
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{author, file};

    #[test]
    fn what_was_encoded_is_decoded_and_what_was_cut_is_damaged() {
        let mut me = author(1);
        let records = [file(&mut me, "/a", 1), file(&mut me, "/b/c", 2)];
        let mut peers = PeerTable::default();
        records.iter().for_each(|record| encode_record(record, &mut peers, &mut Vec::new()));
        let intent = |(temp, record): (u64, Record)| {
            let path = RelPath::from_key(&record.key).unwrap();
            Intent { path, temp: TempId(temp), version: Arc::new(record) }
        };
        let items: Vec<Intent> = (u64::MAX - 9..).zip(records).map(intent).collect();
        let of = |count: usize| {
            let first = items.iter().take(count);
            encode(first.map(|item| (&item.path, item.temp, &*item.version)), &peers)
        };
        let value = of(2);
        assert_eq!(decode(&value, &peers), Ok(items.clone()));
        let ends = [of(1).len(), value.len()];
        for cut in (1..value.len()).filter(|cut| !ends.contains(cut)) {
            assert_eq!(decode(&value[..cut], &peers), Err(Damaged), "{cut}");
        }
    }
}
