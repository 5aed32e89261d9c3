//! The simulated disk as a bench.

use clearskies_core::io::{DiskDone, DiskError, DiskOp, Noticed};
use clearskies_tests::sim::SimDisk;
use clearskies_tests::sim::fs::{Body, Fs};
use clearskies_tests::sim::users::Item;

use crate::Bench;

const FOLDER: &str = "/user/share";

/// A simulated disk with a clock.
pub(crate) struct Sim {
    disk: SimDisk,
    wall_ns: i64,
}

impl Sim {
    /// A disk with an empty folder.
    pub(crate) fn new() -> Sim {
        let mut sim = Sim { disk: SimDisk::default(), wall_ns: 1_800_000_000_000_000_000 };
        sim.disk.mkdir(sim.wall_ns, FOLDER).unwrap();
        sim
    }

    fn absolute(path: &str) -> String {
        match path.strip_prefix("../") {
            Some(beside) => format!("/user/{beside}"),
            None => format!("{FOLDER}/{path}"),
        }
    }

    fn look(&self, path: &str) -> Option<Item> {
        let path = Sim::absolute(path);
        let (above, name) = path.rsplit_once('/')?;
        // A tree leaves out the program's own folder, which is looked at here too: so from its own directory.
        self.disk.tree(above).remove(name)
    }
}

impl Bench for Sim {
    fn run(&mut self, op: DiskOp) -> Result<DiskDone, DiskError> {
        self.wall_ns += 1_000_000;
        self.disk.execute(self.wall_ns, op)
    }

    fn folder(&self) -> String {
        FOLDER.into()
    }

    fn wait(&mut self) {
        self.wall_ns += 50_000_000;
    }

    fn write(&mut self, path: &str, content: &[u8]) {
        self.disk.write(self.wall_ns, &Sim::absolute(path), content).unwrap();
    }

    fn mkdir(&mut self, path: &str) {
        self.disk.mkdir(self.wall_ns, &Sim::absolute(path)).unwrap();
    }

    fn symlink(&mut self, path: &str, target: &str) {
        self.disk.symlink(self.wall_ns, &Sim::absolute(path), target).unwrap();
    }

    fn write_raw(&mut self, name: &[u8]) {
        let path = [FOLDER.as_bytes(), b"/", name].concat();
        let body = Body::File { data: Vec::new().into(), sha256: None, flushed: true };
        self.disk.special(self.wall_ns, &path, body, 0o644).unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.disk.rename_path(self.wall_ns, &Sim::absolute(from), &Sim::absolute(to)).unwrap();
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        self.disk.chmod(self.wall_ns, &Sim::absolute(path), mode).unwrap();
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        match self.look(path)? {
            Item::File(_, data) => Some(data),
            Item::Link(target) => Some(target.into_bytes()),
            Item::Dir(_) => None,
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.look(path).is_some()
    }
}

#[test]
fn inodes_are_used_again() {
    // The nastiest thing that a file system does to who remembers inodes: the simulation must do it too.
    let mut fs = Fs::default();
    let body = || Body::File { data: Vec::new().into(), sha256: None, flushed: true };
    let first = fs.make(body(), 0o644).unwrap();
    fs.free(first);
    assert_eq!(fs.make(body(), 0o644), Ok(first));
}

#[test]
fn a_full_volume_says_so() {
    let mut sim = Sim::new();
    sim.disk.fs.capacity = 10;
    assert_eq!(sim.disk.write(0, "/user/share/a", &[0; 11]), Err(DiskError::NoSpace));
    assert_eq!(sim.disk.write(0, "/user/share/a", &[0; 10]), Ok(()));
}

#[test]
fn changes_are_heard_where_somebody_watches() {
    use clearskies_core::files::path::RelPath;
    use clearskies_core::ids::RootId;
    use clearskies_tests::sim::disk::Hint;

    let mut sim = Sim::new();
    let open = DiskOp::OpenRoot { root: RootId(1), path: FOLDER.into(), create: false };
    sim.run(open).unwrap();
    sim.mkdir("sub");
    sim.write("sub/unheard", b"1");
    let heard = |path: &str| Hint::Seen(RootId(1), RelPath::new(path).unwrap(), Noticed::Done);
    assert_eq!(sim.disk.take_hints(), [Hint::Seen(RootId(1), RelPath::new("sub").unwrap(), Noticed::NewDir)]);
    sim.run(DiskOp::Walk { root: RootId(1), walk: 1, dir: RelPath::root(), limit: 100 }).unwrap();
    sim.write("sub/heard", b"1");
    assert_eq!(sim.disk.take_hints(), [heard("sub/heard")]);
    sim.disk.overflow();
    assert_eq!(sim.disk.take_hints(), [Hint::Overflow(RootId(1))]);
}
