//! The stored form of what is about to be put at which paths: by a group of installs, or as directories. After a crash
//! it tells what sync had just put there from what a user did (sync.md, "Bringing a path to a version"), and the temp
//! tells whether a file was put there at all.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::files::path::RelPath;
use crate::ids::TempId;
use crate::index::codec::{Damaged, PeerTable, decode_record, encode_record};
use crate::index::record::Record;

/// Bits of a path's length, which has at most 4096: what comes is a directory, and has no record.
const DIR: u16 = 1 << 15;
const IMPLIED: u16 = 1 << 14;

/// One thing that is about to be put somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Where to.
    pub path: RelPath,
    /// What.
    pub coming: Coming,
}

/// What is put at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coming {
    /// A file or link, as this version; the temp is there until then, and until the row is gone where it is not put
    /// there.
    Temp(TempId, Arc<Record>),
    /// A directory, as this version or only for what lies beneath it.
    Dir(Option<Arc<Record>>),
}

impl Coming {
    /// The version that it is, if it is one.
    pub fn version(&self) -> Option<&Arc<Record>> {
        match self {
            Coming::Temp(_, version) => Some(version),
            Coming::Dir(version) => version.as_ref(),
        }
    }
}

/// One row for all of a group.
pub fn encode<'a>(items: impl Iterator<Item = (&'a RelPath, Coming)>, peers: &PeerTable) -> Vec<u8> {
    // The versions came from the database, so the table has their peers.
    let mut known = peers.clone();
    let mut value = Vec::new();
    for (path, coming) in items {
        let bits = match coming {
            Coming::Temp(..) => 0,
            Coming::Dir(Some(_)) => DIR,
            Coming::Dir(None) => DIR | IMPLIED,
        };
        value.extend_from_slice(&(path.as_str().len() as u16 | bits).to_be_bytes());
        value.extend_from_slice(path.as_str().as_bytes());
        if let Coming::Temp(temp, _) = coming {
            value.extend_from_slice(&temp.0.to_be_bytes());
        }
        if let Some(version) = coming.version() {
            encode_record(version, &mut known, &mut value);
        }
    }
    value
}

/// Reads what [`encode`] wrote.
pub fn decode(mut value: &[u8], peers: &PeerTable) -> Result<Vec<Intent>, Damaged> {
    let mut items = Vec::new();
    while !value.is_empty() {
        let (len, rest) = value.split_first_chunk::<2>().ok_or(Damaged)?;
        let len = u16::from_be_bytes(*len);
        let (path, rest) = rest.split_at_checked((len & !(DIR | IMPLIED)).into()).ok_or(Damaged)?;
        let path = core::str::from_utf8(path).ok().and_then(RelPath::new).ok_or(Damaged)?;
        value = rest;
        let coming = match (len & DIR > 0, len & IMPLIED > 0) {
            (false, false) => {
                let (temp, rest) = value.split_first_chunk::<8>().ok_or(Damaged)?;
                value = rest;
                let version = Arc::new(decode_record(&mut value, peers)?);
                Coming::Temp(TempId(u64::from_be_bytes(*temp)), version)
            }
            (true, false) => Coming::Dir(Some(Arc::new(decode_record(&mut value, peers)?))),
            (true, true) => Coming::Dir(None),
            (false, true) => return Err(Damaged),
        };
        items.push(Intent { path, coming });
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;
    use crate::index::author::create;
    use crate::index::record::{EntryContent, EntryValue, Meta, Value};
    use crate::index::testing::{author, file};

    #[test]
    fn what_was_encoded_is_decoded_and_what_was_cut_is_damaged() {
        let mut me = author(1);
        let dir = Value::Entry(EntryValue::new(EntryContent::Dir));
        let dir = create(&mut me, Uuid([9; 16]), "/d".into(), dir, Meta::default(), None).unwrap();
        let records = [file(&mut me, "/a", 1), file(&mut me, "/b/c", 2), dir];
        let mut peers = PeerTable::default();
        records.iter().for_each(|record| encode_record(record, &mut peers, &mut Vec::new()));
        let [first, second, third] = records.map(Arc::new);
        let items: Vec<Intent> = [
            ("a", Coming::Temp(TempId(u64::MAX), first)),
            ("b/c", Coming::Temp(TempId(7), second)),
            ("d", Coming::Dir(Some(third))),
            ("d/e", Coming::Dir(None)),
        ]
        .map(|(path, coming)| Intent { path: RelPath::new(path).unwrap(), coming })
        .into();
        let of = |count: usize| {
            let first = items.iter().take(count);
            encode(first.map(|item| (&item.path, item.coming.clone())), &peers)
        };
        let value = of(4);
        assert_eq!(decode(&value, &peers), Ok(items.clone()));
        let ends = [of(1).len(), of(2).len(), of(3).len(), value.len()];
        for cut in (1..value.len()).filter(|cut| !ends.contains(cut)) {
            assert_eq!(decode(&value[..cut], &peers), Err(Damaged), "{cut}");
        }
        let mut no_dir = value[ends[2]..].to_vec();
        no_dir[0] ^= 0x80;
        assert_eq!(decode(&no_dir, &peers), Err(Damaged));
    }

    #[test]
    fn the_longest_path_leaves_its_bits_free() {
        let path = RelPath::new(&"n/".repeat(RelPath::LEN_MAX)[..RelPath::LEN_MAX - 1]).unwrap();
        let item = Intent { path, coming: Coming::Dir(None) };
        let value = encode([(&item.path, item.coming.clone())].into_iter(), &PeerTable::default());
        assert_eq!(decode(&value, &PeerTable::default()), Ok([item].into()));
    }
}
