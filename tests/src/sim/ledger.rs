//! What users did, from their point of view: which contents they wrote, and who replaced, deleted or moved them having
//! seen them. The checks compare a world with it.

use std::collections::{BTreeMap, BTreeSet};

/// The fate of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Nobody who had it replaced or deleted it: it must be somewhere.
    pub alive: bool,
    /// How often it was written.
    pub writes: u32,
    /// It was moved, touched or brought back: where it must not be cannot be told so simply any more.
    pub handled: bool,
    /// A user settled a conflict in which it may have had a part: it may be in an archive alone.
    pub settled: bool,
    /// Who deleted it, and where.
    pub deleted: Option<(usize, String)>,
    /// How often a user deleted it or put something else in its place since all was at rest.
    pub ended: u32,
    /// Where that was.
    pub ended_on: BTreeSet<usize>,
    /// Where it was brought back after it had been deleted.
    pub back_on: Option<usize>,
    /// Something else was where it had been deleted.
    pub followed: bool,
}

/// What users did.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    fates: BTreeMap<Vec<u8>, Fate>,
    /// Machines that forgot and may not have looked at their folder since.
    doubting: BTreeSet<usize>,
    /// Machines whose users did anything.
    hands: BTreeSet<usize>,
    /// The machine whose user did something last.
    acting: Option<usize>,
    /// Some machine may have forgotten what it had told others.
    pub forgetful: bool,
    /// Paths from where something was moved.
    moved_from: BTreeSet<String>,
    /// Machines whose users kept conflict files that may not be in their originals' places yet.
    keepers: BTreeSet<usize>,
    /// A program ended that knew of one, and may have forgotten it (sync.md, Conflicts).
    pub forgot_kept: bool,
    /// Some machine was another before, or became what it had been earlier: what it deletes it may not have seen.
    pub confused: bool,
}

impl Ledger {
    /// A user wrote a content.
    pub fn wrote(&mut self, content: &[u8]) {
        let acting = self.acting;
        let fate = self.fate(content);
        fate.writes += 1;
        // Who writes the same bytes as somebody else wrote them too, and takes back no end of them but his own
        // (sync.md, Conflicts).
        fate.settled |= fate.ended_on.iter().any(|node| Some(*node) != acting);
        fate.handled |= fate.deleted.take().is_some();
        fate.alive = true;
    }

    /// A user of a machine did something.
    pub fn had_a_hand(&mut self, node: usize) {
        self.acting = Some(node);
        self.hands.insert(node);
    }

    /// Whether the users of one machine alone did anything.
    pub fn is_of_one(&self) -> bool {
        self.hands.len() == 1
    }

    /// A user who saw these contents put something else in their place.
    pub fn replaced(&mut self, contents: &[Vec<u8>]) {
        for content in contents {
            let acting = self.acting;
            let fate = self.fate(content);
            fate.alive = false;
            fate.ended += 1;
            fate.ended_on.extend(acting);
        }
    }

    /// A user deleted these: contents with the paths where they were.
    pub fn deleted(&mut self, node: usize, files: &[(String, Vec<u8>)]) {
        for (path, content) in files {
            let fate = self.fate(content);
            fate.alive = false;
            // Who ended it before has a tombstone that may tell of what was there after it.
            fate.followed |= fate.ended > 0;
            fate.ended += 1;
            fate.ended_on.insert(node);
            fate.deleted = Some((node, path.clone()));
        }
    }

    /// What a machine's user deleted, with the paths where it was.
    pub fn deleted_by(&self, node: usize) -> Vec<(Vec<u8>, String)> {
        let deleted = self.fates.iter().filter_map(|(content, fate)| Some((content, fate.deleted.as_ref()?)));
        let by_it = deleted.filter(|(_, (who, _))| *who == node);
        by_it.map(|(content, (_, path))| (content.clone(), path.clone())).collect()
    }

    /// All that is deleted, with the paths where it was.
    pub fn deletes(&self) -> impl Iterator<Item = (&Vec<u8>, &String)> {
        self.fates.iter().filter_map(|(content, fate)| Some((content, &fate.deleted.as_ref()?.1)))
    }

    /// Something else is where this was deleted: a tombstone of that path will tell of that alone.
    pub fn followed(&mut self, content: &[u8]) {
        self.fate(content).followed = true;
    }

    /// A user moved what was at a path: a tombstone of it, by somebody else, will tell of its new path.
    pub fn moved_away(&mut self, path: &str) {
        self.moved_from.insert(path.to_owned());
    }

    /// Something else came to where this had been deleted before any program looked: to the others it was replaced.
    pub fn overwritten(&mut self, content: &[u8]) {
        self.fate(content).deleted = None;
    }

    /// A machine's user took back deletes that were held there: some of these may come back.
    pub fn undeleted(&mut self, node: usize) {
        self.handle_deletes_of(node);
    }

    fn handle_deletes_of(&mut self, node: usize) {
        for fate in self.fates.values_mut() {
            fate.handled |= matches!(fate.deleted, Some((who, _)) if who == node);
        }
    }

    /// These were moved or touched.
    pub fn handled(&mut self, contents: &[Vec<u8>]) {
        for content in contents {
            self.fate(content).handled = true;
        }
    }

    /// Some of these contents were written by somebody else as well, and are nobody's alone.
    pub fn shared(&mut self, is_shared: impl Fn(&[u8]) -> bool) {
        for (_, fate) in self.fates.iter_mut().filter(|(content, _)| is_shared(content)) {
            fate.handled = true;
        }
    }

    /// A user settled a conflict; which contents had a part in it only the engine knows.
    pub fn settled(&mut self) {
        for fate in self.fates.values_mut() {
            (fate.settled, fate.handled) = (true, true);
        }
    }

    /// A machine's user settled a conflict by keeping the conflict file.
    pub fn kept(&mut self, node: usize) {
        self.keepers.insert(node);
    }

    /// A machine's program ends, in whatever way.
    pub fn ended(&mut self, node: usize) {
        self.forgot_kept |= self.keepers.contains(&node);
    }

    /// This was written again where something else had been for a moment, which no program looked at: to the others it
    /// is no change, and one of them may have replaced it.
    pub fn went_unseen(&mut self, content: &[u8]) {
        let fate = self.fate(content);
        (fate.settled, fate.handled) = (true, true);
    }

    /// This came back at the wish of a machine's user. One that forgot takes what equals a deleted version for that,
    /// and keeps it in its archive (sync.md, Known gaps). Where two ended the same bytes at once, and one end is taken
    /// back, the other still stands (sync.md, Conflicts).
    pub fn restored(&mut self, node: usize, content: &[u8]) {
        let doubts = self.doubting.contains(&node);
        let fate = self.fate(content);
        fate.settled |= doubts || fate.ended > 1;
        (fate.alive, fate.handled, fate.deleted, fate.back_on) = (true, true, None, Some(node));
    }

    /// A machine's disk was thrown away: what had been brought back there is again what it was before, in archives.
    pub fn thrown_away(&mut self, node: usize) {
        for fate in self.fates.values_mut().filter(|fate| fate.back_on == Some(node)) {
            fate.alive = false;
        }
    }

    /// A machine forgot: what was deleted there may never have been told. What it forgot to have come back passes for
    /// what was deleted before (sync.md, Known gaps).
    pub fn forgot(&mut self, node: usize) {
        self.forgetful = true;
        self.doubting.insert(node);
        for fate in self.fates.values_mut() {
            // Whoever deletes what this machine has forgotten to know deletes less than lies there.
            fate.handled |= matches!(fate.deleted, Some((who, _)) if who != usize::MAX);
            fate.settled |= fate.back_on == Some(node);
        }
    }

    /// Everything is at rest: what was deleted is known to all, whatever any of them may forget.
    pub fn rested(&mut self) {
        self.doubting.clear();
        self.keepers.clear();
        for fate in self.fates.values_mut() {
            if let Some((who, _)) = &mut fate.deleted {
                *who = usize::MAX;
            }
            (fate.ended, fate.back_on) = (0, None);
            fate.ended_on.clear();
        }
    }

    fn fate(&mut self, content: &[u8]) -> &mut Fate {
        self.fates.entry(content.to_vec()).or_default()
    }

    /// Whether a user ever wrote exactly this.
    pub fn knows(&self, content: &[u8]) -> bool {
        self.fates.contains_key(content)
    }

    /// Bytes of all contents that users wrote.
    pub fn written(&self) -> u64 {
        self.fates.keys().map(|content| content.len() as u64).sum()
    }

    /// What must be somewhere.
    pub fn alive(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.fates.iter().filter(|(_, fate)| fate.alive).map(|(content, _)| content)
    }

    /// What must stand in the folders, and not in an archive alone. To who forgot the last version of a file, one that
    /// has the bytes of an earlier version may be that file, moved (sync.md, Known gaps). What was deleted and written
    /// again elsewhere may be a move as well, of a file that somebody else changes meanwhile.
    pub fn standing(&self) -> impl Iterator<Item = &Vec<u8>> {
        let is_sure = |fate: &Fate| {
            fate.alive && !fate.settled && !(fate.writes > 1 && (self.forgetful || fate.handled))
        };
        self.fates.iter().filter(move |(_, fate)| is_sure(fate)).map(|(content, _)| content)
    }

    /// What must be somewhere, but for what is on none of the disks: those that a user threw away with a disk.
    pub fn bury_all_but(&mut self, kept: &BTreeSet<Vec<u8>>) {
        for (content, fate) in &mut self.fates {
            fate.alive &= kept.contains(content);
        }
    }

    /// Each content that was deleted as its writer had left it, with the path where it was. Who forgot knows of a
    /// deleted path what was there last, and nothing of what was there before or was moved away (sync.md, Known gaps).
    pub fn gone_for_good(&self) -> impl Iterator<Item = (&Vec<u8>, &String)> {
        let moved = |path: &str| {
            let beneath =
                |dir: &String| path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
            self.moved_from.iter().any(|from| path == from || beneath(from))
        };
        self.fates
            .iter()
            .filter(|(_, fate)| fate.writes == 1 && !fate.handled && !fate.alive)
            .filter(|(_, fate)| !(fate.followed && self.forgetful))
            .filter_map(|(content, fate)| fate.deleted.as_ref().map(|(_, path)| (content, path)))
            .filter(move |(_, path)| !(self.forgetful && moved(path)))
    }

    /// Whether a content was written once, and never brought back.
    pub fn is_single(&self, content: &[u8]) -> bool {
        self.fates.get(content).is_some_and(|fate| fate.writes == 1 && !fate.handled)
    }
}
