//! Real daemons for tests: builds the program once, starts it on homes of its own, speaks to it as users and other
//! programs do. Ends every daemon that it started.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take that needs no large transfer.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long the program may take to start or end.
const START_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until something holds, and fails with `what` if it does not come to hold.
pub fn eventually(at_most: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < at_most, "not within {at_most:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The program `clearskies`, of the profile in which this test was built; it is built first, so it is never stale.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("a test knows its own file");
        let profile = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "clearskies-blocking",
            "--bin",
            "clearskies",
        ]);
        build
            .arg("--target-dir")
            .arg(profile.parent().expect("a profile's folder lies in the target folder"));
        match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => {}
            Some(name) => {
                build.args(["--profile", name]);
            }
        }
        // What cargo told this test of its own package would have build scripts run, and crates built, once more.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&*name);
            }
        }
        let status = build.current_dir(crate::sources::root()).status().expect("cargo runs");
        assert!(status.success(), "the program does not build");
        profile.join("clearskies")
    })
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output of a run that must have gone well, without white space around it.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim().to_owned()
    }

    /// Standard error of a run that must have been refused: a sentence, and exit code 1.
    pub fn refused(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        assert!(self.err.trim().len() > 10, "a refusal says why: {self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

/// What a namespace keeps a test apart from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// The network: only loopback is up.
    Network,
    /// The mounts: what the test mounts is seen by nobody else, and gone with it.
    Mounts,
}

/// Runs a test of this binary once more in a namespace. Prints a sentence where the system does not allow that.
pub fn run_apart(test: &str, from: Apart) {
    let (flag, inside) = match from {
        Apart::Network => {
            ("--net", "ip link set lo up 2>/dev/null || ifconfig lo up || exit 111; exec \"$@\"")
        }
        Apart::Mounts => ("--mount", "mount -t tmpfs none /mnt && umount /mnt || exit 111; exec \"$@\""),
    };
    let exe = std::env::current_exe().expect("a test knows its own file");
    let mut command = Command::new("unshare");
    command.args([flag, "--map-root-user", "sh", "-c", inside, "sh"]).arg(exe);
    command.args(["--exact", test, "--nocapture"]).env(APART, "1").stdin(Stdio::null());
    match command.output() {
        Ok(out) if out.status.success() => {}
        Ok(out) if String::from_utf8_lossy(&out.stdout).contains(test) => panic!(
            "apart: {}\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ),
        _ => println!("{test}: not tried apart ({from:?}), since no namespace for it can be made here."),
    }
}

/// Whether [`run_apart`] runs this test.
pub fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

const APART: &str = "CLEARSKIES_TEST_APART";

/// A node: a home folder, a folder to share, and its daemon while it runs.
#[derive(Debug)]
pub struct Node {
    top: tempfile::TempDir,
    port: u16,
    /// Whether it looks for peers on the local network.
    lan: bool,
    /// A program that starts the daemon, with its arguments; empty for none.
    under: Vec<String>,
    daemon: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        // Also one that a command started by itself.
        if self.control().exists() {
            let _ = self.run(&["stop"]);
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::new()
    }
}

impl Node {
    /// A node whose daemon does not run, with an empty folder to share.
    pub fn new() -> Node {
        let top = tempfile::tempdir().expect("there is room for a temporary folder");
        std::fs::create_dir(top.path().join("share")).expect("a new folder is writable");
        Node { top, port: free_port(), lan: false, under: Vec::new(), daemon: None }
    }

    /// A node with a running daemon.
    pub fn running() -> Node {
        let mut node = Node::new();
        node.start();
        node
    }

    /// A node with a running daemon that looks for peers on the local network.
    pub fn running_on_lan() -> Node {
        let mut node = Node::new();
        node.lan = true;
        node.start();
        node
    }

    /// Has the daemon started by another program from now on, with limits of its own.
    pub fn set_under(&mut self, program: &[&str]) {
        self.under = program.iter().map(|word| (*word).to_owned()).collect();
    }

    /// The home folder.
    pub fn home(&self) -> PathBuf {
        self.top.path().join("home")
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.home().join("control")
    }

    /// A path in the folder to share; the folder itself for the empty path.
    pub fn path(&self, path: &str) -> PathBuf {
        let share = self.top.path().join("share");
        if path.is_empty() { share } else { share.join(path) }
    }

    /// The folder to share, as an argument.
    pub fn share(&self) -> String {
        self.path("").to_str().expect("a temporary folder's path is UTF-8").to_owned()
    }

    /// A path beside home and share, as an argument.
    pub fn beside(&self, name: &str) -> String {
        self.top.path().join(name).to_str().expect("a temporary folder's path is UTF-8").to_owned()
    }

    /// Where the daemon listens.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_under(&[], args)
    }

    fn command_under(&self, under: &[String], args: &[&str]) -> Command {
        let mut command = match under.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg("--home").arg(self.home()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let out = self.command(args).output().expect("the program can be run");
        Ran {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "it runs already");
        let port = self.port.to_string();
        let log = std::fs::File::options().create(true).append(true).open(self.top.path().join("stderr"));
        let log = log.expect("a log can be written");
        let mut command = self.command_under(&self.under, &["start", "--no-fork", "--listen-port", &port]);
        if !self.lan {
            command.arg("--no-lan");
        }
        self.daemon =
            Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("the program can be run"));
        eventually(START_MAX, "the daemon answers", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log());
            self.ask(&json!({ "type": "status" })).is_some()
        });
    }

    /// What the daemon wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.top.path().join("stderr")).unwrap_or_default()
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Whether this started a daemon and has not ended it.
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// Kills the daemon (`kill -9`), if it runs.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself; then there is nothing to kill, and waiting still reaps it.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Waits for the daemon's end and returns its exit code.
    pub fn wait_end(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            if begun.elapsed() > START_MAX {
                let _ = daemon.kill();
                let _ = daemon.wait();
                panic!("the daemon does not end\n{}", self.log());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Stops the daemon in good order.
    pub fn stop(&mut self) {
        self.run(&["stop"]).ok();
        assert_eq!(self.wait_end(), Some(0), "{}", self.log());
    }

    /// One request over the control socket, as another program would send it; `None` if nobody answers.
    pub fn ask(&self, request: &Value) -> Option<Value> {
        let mut client = Control::connect(&self.control())?;
        client.send(&format!("{request}\n"));
        client.line()
    }

    /// The one share's status.
    pub fn status(&self) -> Value {
        let text = self.run(&["status", "--json"]).ok();
        let status: Value = serde_json::from_str(&text).expect("the status is JSON");
        status["shares"][0].clone()
    }

    /// The share's problems, as one text.
    pub fn problems(&self) -> String {
        self.status()["problems"].to_string()
    }

    /// Whether the share says that it is in step.
    pub fn in_sync(&self) -> bool {
        self.status()["in_sync"] == true
    }

    /// Shares the folder and returns a code.
    pub fn invite(&self) -> String {
        self.run(&["share", &self.share()]).ok().lines().last().unwrap_or_default().to_owned()
    }

    /// Attaches the folder with a code, dialling another node.
    pub fn attach(&self, code: &str, to: &Node, more: &[&str]) -> Ran {
        let (share, addr) = (self.share(), to.addr());
        let mut args = vec!["attach", code, &share, "--peer", &addr];
        args.extend(more);
        self.run(&args)
    }

    /// Writes a file of the share, with its directories.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("it lies in the share")).expect("the share is writable");
        std::fs::write(path, content).expect("the share is writable");
    }

    /// A file of the share as text.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.path(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The share's tree.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        grow(&self.path(""), "", &mut tree);
        tree
    }

    /// The paths of the share.
    pub fn names(&self) -> Vec<String> {
        self.tree().into_keys().collect()
    }

    /// The contents of all files in the archive.
    pub fn archive(&self) -> Vec<Vec<u8>> {
        let mut tree = Tree::new();
        grow(&self.path(".clearskies/archive"), "", &mut tree);
        tree.into_values().map(|(_, content)| content).collect()
    }
}

/// Two running nodes with one share between them.
pub fn pair() -> (Node, Node) {
    pair_of(Node::running(), Node::running())
}

/// The same of nodes that run already.
pub fn pair_of(a: Node, b: Node) -> (Node, Node) {
    let code = a.invite();
    b.attach(&code, &a, &[]).ok();
    in_step(&[&a, &b]);
    (a, b)
}

/// Bytes that no compression makes smaller.
pub fn noise(len: usize) -> Vec<u8> {
    crate::sim::Rng::new(len as u64).bytes(len)
}

/// The conflict files that a node has.
pub fn conflict_files(node: &Node) -> Vec<String> {
    node.names().into_iter().filter(|name| name.contains(".CONFLICT.")).collect()
}

/// Bytes that a node received from members in this run.
pub fn received(node: &Node) -> u64 {
    let peers = node.ask(&json!({ "type": "peers" })).expect("the daemon answers");
    let peers = peers["peers"].as_array().expect("a list");
    peers.iter().filter_map(|peer| peer["received"].as_u64()).sum()
}

/// Waits until all these nodes hold equal trees and say that they are in step.
pub fn in_step(nodes: &[&Node]) {
    in_step_within(DEADLINE, nodes);
}

/// Like [`in_step`], for large transfers.
pub fn in_step_within(at_most: Duration, nodes: &[&Node]) {
    let begun = Instant::now();
    loop {
        let trees: Vec<Tree> = nodes.iter().map(|node| node.tree()).collect();
        if trees.windows(2).all(|pair| pair[0] == pair[1]) && nodes.iter().all(|node| node.in_sync()) {
            return;
        }
        if begun.elapsed() > at_most {
            let shown: Vec<String> = nodes
                .iter()
                .map(|node| format!("{:?}\n{}\n{}", node.names(), node.status(), node.log()))
                .collect();
            panic!("not in step within {at_most:?}\n{}", shown.join("\n---\n"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Paths, each with its kind and permission bits in one number, and a file's bytes or a link's target.
pub type Tree = BTreeMap<String, (u32, Vec<u8>)>;

fn grow(dir: &Path, above: &str, tree: &mut Tree) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let Ok(meta) = path.symlink_metadata() else { continue };
        if above.is_empty() && name == ".clearskies" {
            continue;
        }
        let content = if meta.is_symlink() {
            std::fs::read_link(&path).map(|target| target.to_string_lossy().into_owned().into_bytes())
        } else if meta.is_file() {
            std::fs::read(&path)
        } else {
            grow(&path, &format!("{above}{name}/"), tree);
            Ok(Vec::new())
        };
        tree.insert(format!("{above}{name}"), (meta.permissions().mode(), content.unwrap_or_default()));
    }
}

/// A client of the control protocol that knows nothing but lines.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    /// The first line that came.
    pub greeting: Value,
}

impl Control {
    /// Connects and reads the greeting; `None` if nobody is there.
    pub fn connect(path: &Path) -> Option<Control> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let mut control = Control { stream: BufReader::new(stream), greeting: Value::Null };
        control.greeting = control.line()?;
        Some(control)
    }

    /// Sends text as it is.
    pub fn send(&mut self, text: &str) {
        // A daemon that is just ending does not take it; the missing answer shows that.
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// Reads one line of JSON; `None` at the end.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(len) if len > 0 => Some(serde_json::from_str(&line).expect("every line is JSON")),
            _ => None,
        }
    }
}

/// A port on which nobody listens, and which the system gives to no connection meanwhile: it takes those from 32768 on.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(101);
    let ports = std::iter::repeat_with(|| first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut ports = ports.take(12_000).filter_map(|number| u16::try_from(20_000 + number).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("there is a free port")
}
