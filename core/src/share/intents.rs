//! The stored form of what a group of installs is about to put at which paths. After a crash it tells content that an
//! install had just put there from a user's edit (sync.md, "Bringing a path to a version").

use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::index::codec::{Damaged, PeerTable, decode_record, encode_record};
use crate::index::record::Record;

/// One row for all installs of a group.
pub fn encode<'a>(items: impl Iterator<Item = (&'a RelPath, &'a Record)>, peers: &PeerTable) -> Vec<u8> {
    // The versions came from the database, so the table has their peers.
    let mut known = peers.clone();
    let mut value = Vec::new();
    for (path, version) in items {
        // A path has at most 4096 bytes.
        value.extend_from_slice(&(path.as_str().len() as u16).to_be_bytes());
        value.extend_from_slice(path.as_str().as_bytes());
        encode_record(version, &mut known, &mut value);
    }
    value
}

/// Reads what [`encode`] wrote.
pub fn decode(mut value: &[u8], peers: &PeerTable) -> Result<Vec<(RelPath, Record)>, Damaged> {
    let mut items = Vec::new();
    while !value.is_empty() {
        let (len, rest) = value.split_first_chunk::<2>().ok_or(Damaged)?;
        let (path, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or(Damaged)?;
        let path = core::str::from_utf8(path).ok().and_then(RelPath::new).ok_or(Damaged)?;
        value = rest;
        items.push((path, decode_record(&mut value, peers)?));
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
        let items: Vec<(RelPath, Record)> =
            records.into_iter().map(|record| (RelPath::from_key(&record.key).unwrap(), record)).collect();
        let value = encode(items.iter().map(|(path, record)| (path, record)), &peers);
        assert_eq!(decode(&value, &peers), Ok(items.clone()));
        let mut first = Vec::new();
        let ends: Vec<usize> = (0..2)
            .map(|n| {
                first.push(items[n].clone());
                encode(first.iter().map(|(path, record)| (path, record)), &peers).len()
            })
            .collect();
        for cut in (1..value.len()).filter(|cut| !ends.contains(cut)) {
            assert_eq!(decode(&value[..cut], &peers), Err(Damaged), "{cut}");
        }
    }
}
