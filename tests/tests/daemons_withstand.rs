//! Two real daemons, and what goes wrong around them: full volumes, files that cannot be read, kills in the middle of a
//! large transfer, homes taken back from a copy. Whatever happens, it is said, other files go on and nothing is lost.
//!
//! What the program must withstand, and the tests that hold real daemons against it (here, in `daemons.rs`, and in
//! `daemons_foreign.rs`, marked *d* and *f*):
//!
//! - a mistyped code, said before any network use: *d* `a_mistyped_code_is_refused_before_anything_happens`
//! - a wrong code: `a_code_that_nobody_made_is_refused_in_words`
//! - a spent code: `a_spent_code_is_refused_in_words`, *f* `a_code_that_a_daemon_spent_is_refused_in_words`
//! - an expired code: *f* `a_code_that_is_a_day_old_is_refused_in_words`
//! - a path missing, no directory, nested: *d* `folders_that_cannot_be_shared_are_refused`,
//!   `folders_that_cannot_be_attached_are_refused`
//! - a path unreadable: `a_root_that_cannot_be_read_is_refused_and_later_deletes_nothing`
//! - disk full in mid-transfer: `a_full_volume_is_reported_and_small_files_go_on`,
//!   `a_file_beyond_the_limit_of_the_process_is_reported_and_others_go_on`,
//!   `a_full_volume_of_the_home_is_reported_and_nothing_is_lost`
//! - a file that changes while it is sent: *d* `a_file_that_changes_while_it_is_sent_arrives_in_the_end`,
//!   `a_large_file_that_is_rewritten_while_it_is_sent_arrives_as_it_is_in_the_end`
//! - a file that cannot be read: `a_file_that_cannot_be_read_is_reported_and_others_go_on`,
//!   `pipes_and_sockets_are_left_alone`
//! - names not UTF-8: *d* `names_that_are_not_utf8_are_reported_and_others_go_on`
//! - a root unmounted: `a_volume_that_is_unmounted_deletes_nothing`,
//!   *d* `a_folder_that_is_gone_deletes_nothing`
//! - a root emptied: `a_folder_that_is_emptied_deletes_nothing`, *d* `many_deletions_wait_for_a_word`
//! - a kill at any moment on either side: *d* `a_kill_at_any_moment_loses_nothing`,
//!   `a_large_transfer_goes_on_after_the_receiver_is_killed`,
//!   `a_large_transfer_goes_on_after_the_sender_is_killed`,
//!   *f* `a_large_download_is_taken_up_where_a_kill_left_it`
//! - a peer that sends garbage: *d* `strangers_are_sent_away`, `strangers_inside_tls_are_sent_away`,
//!   *f* `messages_beyond_the_limits_end_the_link_with_a_word`
//! - oversized frames: `strangers_inside_tls_are_sent_away`,
//!   *f* `messages_beyond_the_limits_end_the_link_with_a_word`, *f* `a_flood_of_records_does_not_stop_the_others`
//! - paths that climb out: *f* `paths_that_climb_out_become_no_files`,
//!   *f* `requests_get_nothing_but_what_the_share_has`
//! - links that point outside: *d* `links_that_point_outside_stay_links`,
//!   *f* `links_that_point_outside_are_never_followed`
//! - records that claim nonsense: *f* `records_that_claim_nonsense_are_refused_by_name`,
//!   *f* `claims_that_nobody_can_check_harm_nothing_else`,
//!   *f* `content_that_is_not_what_it_was_said_to_be_is_thrown_away`
//! - a peer that stalls: *f* `a_member_that_stops_reading_holds_up_nobody`,
//!   *f* `a_member_that_stops_giving_holds_up_no_other_file`,
//!   *f* `a_member_that_never_answers_holds_up_the_others_for_seconds`
//! - clocks a year apart: *f* `a_member_whose_clock_is_a_year_ahead_loses_nobodys_edits`,
//!   *f* `a_member_whose_clock_is_a_year_behind_loses_nobodys_edits`
//! - a store file deleted: *d* `a_store_that_is_lost_loses_no_file`,
//!   `a_damaged_store_is_said_and_harms_no_file`
//! - a store file restored from yesterday: `a_store_taken_back_alone_from_a_copy_loses_nothing`,
//!   `a_home_taken_back_from_a_copy_catches_up`, `a_home_taken_back_from_a_copy_loses_nothing`

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use clearskies_tests::daemon::{
    Apart, DEADLINE, Node, conflict_files, eventually, in_step, in_step_within, is_apart, noise, pair,
    pair_of, received, run_apart,
};

/// For transfers of hundreds of megabytes in a build without optimisation.
const LONG: Duration = Duration::from_secs(120);
/// A large file.
const LARGE_BYTES: u64 = 256 << 20;
/// A larger one, for a receiver that is killed: what the volume has not confirmed is fetched again, at most two times
/// 64 MiB and what was on its way to the disk.
const LARGER_BYTES: u64 = 512 << 20;

/// Makes a file of bytes that no compression makes smaller and no part of which is there twice.
fn write_large(path: &Path, len: u64) {
    let random = File::open("/dev/urandom").unwrap();
    let copied = std::io::copy(&mut random.take(len), &mut File::create(path).unwrap()).unwrap();
    assert_eq!(copied, len);
}

fn same_content(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg("-s").args([a, b]).status().unwrap().success()
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A node whose daemon may not read what its files' modes forbid; `None`, with a sentence, where that cannot be had.
fn without_privileges(test: &str) -> Option<Node> {
    let mut node = Node::new();
    let probe = node.path("probe");
    fs::write(&probe, "x").unwrap();
    fs::set_permissions(&probe, Permissions::from_mode(0o000)).unwrap();
    let reads = |under: &[&str]| {
        let mut words = under.iter().copied().chain(["cat"]);
        let program = words.next().unwrap();
        Command::new(program).args(words).arg(&probe).output().map(|out| (out.status.success(), out.stderr))
    };
    let drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"];
    let privileged = reads(&[]).unwrap().0;
    let dropped = privileged
        && matches!(reads(&drop), Ok((false, said)) if String::from_utf8_lossy(&said).contains("ermission"));
    fs::remove_file(&probe).unwrap();
    if privileged && !dropped {
        println!(
            "{test}: not tried, since the superuser may read everything and setpriv cannot change that here."
        );
        return None;
    }
    if privileged {
        node.set_under(&drop);
    }
    node.start();
    Some(node)
}

#[test]
fn a_large_transfer_goes_on_after_the_receiver_is_killed() {
    let (a, mut b) = pair();
    write_large(&a.path("large"), LARGER_BYTES);
    eventually(LONG, "most of it is there", || received(&b) > LARGER_BYTES * 3 / 4);
    b.kill();
    assert!(!b.path("large").exists(), "it was killed too late to show anything");
    b.start();
    eventually(LONG, "all of it is there", || b.path("large").exists());
    let second = received(&b);
    assert!(second < LARGER_BYTES * 6 / 10, "{second} bytes after the restart");
    assert!(same_content(&a.path("large"), &b.path("large")));
    assert_eq!(b.names(), ["large"]);
}

#[test]
fn a_large_transfer_goes_on_after_the_sender_is_killed() {
    let (mut a, b) = pair();
    write_large(&a.path("large"), LARGE_BYTES);
    eventually(LONG, "half of it is there", || received(&b) > LARGE_BYTES / 2);
    a.kill();
    assert!(!b.path("large").exists(), "it was killed too late to show anything");
    eventually(DEADLINE, "the old link is gone", || b.status()["peers_connected"] == 0);
    let first = received(&b);
    assert!(first > LARGE_BYTES / 2, "what came over a link that is gone still counts: {first}");
    a.start();
    eventually(LONG, "all of it is there", || b.path("large").exists());
    let second = received(&b) - first;
    assert!(second < LARGE_BYTES * 6 / 10, "{second} bytes after the restart");
    assert!(same_content(&a.path("large"), &b.path("large")));
    assert_eq!(b.names(), ["large"]);
}

#[test]
fn a_full_volume_is_reported_and_small_files_go_on() {
    let test = "a_full_volume_is_reported_and_small_files_go_on";
    if !is_apart() {
        return run_apart(test, Apart::Mounts);
    }
    let (a, b) = (Node::running(), Node::running());
    let place = b.path("");
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&place);
        assert!(mount.status().unwrap().success());
    };
    mount("size=8m");
    let (a, b) = pair_of(a, b);
    a.write("large", noise(30_000_000));
    a.write("small before", "1");
    eventually(DEADLINE, "b says that its volume is full", || b.problems().contains("full"));
    a.write("small after", "2");
    let small = || b.read("small before").is_some() && b.read("small after").is_some();
    eventually(DEADLINE, "small files still arrive", small);
    assert!(!b.in_sync() && !b.path("large").exists());
    assert!(b.run(&["why", b.path("large").to_str().unwrap()]).ok().contains("full"));
    mount("remount,size=100m");
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(b.names(), ["large", "small after", "small before"]);
    assert_eq!(b.problems(), "[]");
}

/// What lies on a volume that is mounted inside a share stays there, and it is said why; what it covers stays too.
#[test]
fn a_volume_inside_a_share_is_left_alone_and_named() {
    let test = "a_volume_inside_a_share_is_left_alone_and_named";
    if !is_apart() {
        return run_apart(test, Apart::Mounts);
    }
    let (a, b) = (Node::running(), Node::running());
    let (a, b) = pair_of(a, b);
    for index in 0..30 {
        a.write(&format!("vol/{index}"), "beneath");
    }
    in_step(&[&a, &b]);
    let (place, said) = (b.path("vol"), "another volume is mounted there");
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&place).status().unwrap().success());
    b.write("vol/mine", "on it");
    let why = |name: &str| b.run(&["why", b.path(name).to_str().unwrap()]).ok();
    // No event tells of a mount: who asks has it looked at.
    let asked = || why("vol/mine").contains(said);
    eventually(DEADLINE, "why says it", asked);
    eventually(DEADLINE, "status says it", || b.problems().contains(said));
    assert!(!b.problems().contains("permission"), "{}", b.problems());
    // What is to come there waits, with the same reason, and what is to go there stays.
    a.write("vol/new", "from a");
    std::fs::remove_file(a.path("vol/1")).unwrap();
    eventually(DEADLINE, "the download says it", || why("vol/new").to_lowercase().contains(said));
    std::thread::sleep(Duration::from_secs(3));
    assert!(!b.path("vol/new").exists() && b.read("vol/mine").is_some());
    assert_eq!(a.names().len(), 31, "{:?}", a.names());
    assert!(Command::new("umount").args(["-l"]).arg(&place).status().unwrap().success());
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(b.names(), a.names());
    assert_eq!((b.names().len(), b.problems().as_str()), (31, "[]"));
}

/// The same without a volume of its own: no file of the daemon may grow beyond a limit.
#[test]
fn a_file_beyond_the_limit_of_the_process_is_reported_and_others_go_on() {
    let (a, mut b) = (Node::running(), Node::new());
    b.set_under(&["sh", "-c", "trap '' XFSZ; ulimit -f 16384 && exec \"$@\"", "sh"]);
    b.start();
    let (a, mut b) = pair_of(a, b);
    a.write("large", noise(20_000_000));
    eventually(DEADLINE, "b says that there is no room", || b.problems().contains("full"));
    a.write("small", "2");
    eventually(DEADLINE, "small files still arrive", || b.read("small").is_some());
    assert!(!b.path("large").exists());
    b.kill();
    b.set_under(&[]);
    b.start();
    in_step(&[&a, &b]);
    assert_eq!(b.names(), ["large", "small"]);
}

#[test]
fn a_spent_code_is_refused_in_words() {
    let (a, b) = (Node::running(), Node::running());
    let code = a.invite();
    b.attach(&code, &a, &[]).ok();
    in_step(&[&a, &b]);
    let c = Node::running();
    let said = c.attach(&code, &a, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    eventually(DEADLINE, "it says so", || c.problems().contains("does not take the access code"));
    assert!(c.names().is_empty());
    // As it says: with another code it goes on.
    c.run(&["detach", &c.share()]).ok();
    c.attach(&a.invite(), &a, &[]).ok();
    in_step(&[&a, &b, &c]);
    assert_eq!(c.problems(), "[]");
}

#[test]
fn a_file_that_cannot_be_read_is_reported_and_others_go_on() {
    let Some(a) = without_privileges("a_file_that_cannot_be_read_is_reported_and_others_go_on") else {
        return;
    };
    let (a, b) = pair_of(a, Node::running());
    a.write("seen", "before");
    eventually(DEADLINE, "it arrives", || b.read("seen").is_some());
    in_step(&[&a, &b]);
    a.write("secret", "x");
    fs::set_permissions(a.path("secret"), Permissions::from_mode(0o000)).unwrap();
    a.write("locked/inner", "x");
    a.write("open", "1");
    eventually(DEADLINE, "the other file arrives", || b.read("open").is_some());
    eventually(DEADLINE, "the file is reported", || a.problems().contains("secret"));
    assert!(a.run(&["why", a.path("secret").to_str().unwrap()]).ok().contains("permission"));

    // A folder that can no longer be looked into is not empty.
    eventually(DEADLINE, "the folder arrives", || b.read("locked/inner").is_some());
    fs::set_permissions(a.path("locked"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(a.path("seen"), Permissions::from_mode(0o000)).unwrap();
    eventually(DEADLINE, "the folder is reported", || a.problems().contains("locked"));
    a.write("later", "2");
    eventually(DEADLINE, "others still go on", || b.read("later").is_some());
    assert_eq!(b.read("locked/inner").as_deref(), Some("x"));
    assert_eq!(b.read("seen").as_deref(), Some("before"));

    for (path, mode) in [("locked", 0o755), ("secret", 0o644), ("seen", 0o644)] {
        fs::set_permissions(a.path(path), Permissions::from_mode(mode)).unwrap();
    }
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(b.read("secret").as_deref(), Some("x"));
    assert_eq!(a.problems(), "[]");
}

#[test]
fn a_root_that_cannot_be_read_is_refused_and_later_deletes_nothing() {
    let test = "a_root_that_cannot_be_read_is_refused_and_later_deletes_nothing";
    let Some(a) = without_privileges(test) else { return };
    fs::set_permissions(a.path(""), Permissions::from_mode(0o000)).unwrap();
    let said = a.run(&["share", &a.share()]).refused();
    assert!(said.contains("permission") || said.contains("denied"), "{said}");
    fs::set_permissions(a.path(""), Permissions::from_mode(0o755)).unwrap();

    let (a, b) = pair_of(a, Node::running());
    a.write("file", "1");
    eventually(DEADLINE, "it arrives", || b.read("file").is_some());
    in_step(&[&a, &b]);
    fs::set_permissions(a.path(""), Permissions::from_mode(0o000)).unwrap();
    b.write("from b", "2");
    eventually(DEADLINE, "it says so", || a.problems() != "[]");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(b.names(), ["file", "from b"]);
    fs::set_permissions(a.path(""), Permissions::from_mode(0o755)).unwrap();
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.names(), ["file", "from b"]);
}

#[test]
fn pipes_and_sockets_are_left_alone() {
    let (a, b) = pair();
    a.write("was a file", "1");
    eventually(DEADLINE, "it arrives", || b.read("was a file").is_some());
    in_step(&[&a, &b]);
    let mkfifo = |name: &str| assert!(Command::new("mkfifo").arg(a.path(name)).status().unwrap().success());
    mkfifo("pipe");
    fs::remove_file(a.path("was a file")).unwrap();
    mkfifo("was a file");
    let _socket = UnixListener::bind(a.path("socket")).unwrap();
    a.write("file", "2");
    eventually(DEADLINE, "the file arrives", || b.read("file").is_some());
    assert!(!b.path("pipe").exists() && !b.path("socket").exists());
    assert_eq!(b.read("was a file").as_deref(), Some("1"), "what is no file is not deleted for that");
    for special in ["pipe", "socket", "was a file"] {
        let why = a.run(&["why", a.path(special).to_str().unwrap()]).ok();
        assert!(why.contains("It is a socket, a pipe or a device"), "{special}: {why}");
    }
    // What b writes where a has a pipe does not go into the pipe, nor does it wait for somebody to read it.
    b.write("pipe", "3");
    b.write("more", "4");
    eventually(DEADLINE, "others go on", || a.read("more").is_some());
    let was = fs::symlink_metadata(a.path("pipe")).unwrap();
    assert!(was.is_file() || was.mode() & 0o170_000 == 0o010_000, "{:o}", was.mode());
    assert_eq!(b.read("pipe").as_deref(), Some("3"));
}

#[test]
fn a_large_file_that_is_rewritten_while_it_is_sent_arrives_as_it_is_in_the_end() {
    let (a, b) = pair();
    write_large(&a.path("large"), 64 << 20);
    let file = File::options().write(true).open(a.path("large")).unwrap();
    for round in 0..8u64 {
        std::thread::sleep(Duration::from_millis(120));
        file.write_all_at(&noise(200_000), round * 7_000_000).unwrap();
    }
    a.write("other", "1");
    in_step_within(LONG, &[&a, &b]);
    assert!(same_content(&a.path("large"), &b.path("large")));
    assert_eq!(b.names(), ["large", "other"]);
    assert_eq!(conflict_files(&a), [] as [String; 0]);
}

#[test]
fn a_home_taken_back_from_a_copy_catches_up() {
    let (a, mut b) = pair();
    b.write("old", "1");
    eventually(DEADLINE, "it arrives", || a.read("old").is_some());
    in_step(&[&a, &b]);
    b.stop();
    let saved = b.beside("saved");
    copy(&b.home(), Path::new(&saved));
    b.start();
    fs::remove_file(a.path("old")).unwrap();
    a.write("new", "2");
    eventually(DEADLINE, "a's changes arrive", || !b.path("old").exists() && b.read("new").is_some());
    in_step(&[&a, &b]);
    b.stop();
    fs::remove_dir_all(b.home()).unwrap();
    copy(Path::new(&saved), &b.home());
    b.start();
    b.write("after", "3");
    eventually(LONG, "b's new file arrives", || a.read("after").is_some());
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.names(), ["after", "new"]);
}

#[test]
fn a_home_taken_back_from_a_copy_loses_nothing() {
    let (a, mut b) = pair();
    b.write("old", "1");
    b.write("edited", "1");
    eventually(DEADLINE, "both arrive", || a.names().len() == 2);
    in_step(&[&a, &b]);
    b.stop();
    let saved = b.beside("saved");
    copy(&b.home(), Path::new(&saved));
    b.start();
    // All this is not in the copy: an edit and a new file of b, a deletion by a, and one more edit by a.
    b.write("edited", "second");
    b.write("new on b", "2");
    eventually(DEADLINE, "b's changes arrive", || {
        a.read("edited").as_deref() == Some("second") && a.read("new on b").is_some()
    });
    fs::remove_file(a.path("old")).unwrap();
    a.write("new on a", "3");
    eventually(DEADLINE, "a's changes arrive", || !b.path("old").exists() && b.read("new on a").is_some());
    in_step(&[&a, &b]);
    b.stop();
    fs::remove_dir_all(b.home()).unwrap();
    copy(Path::new(&saved), &b.home());
    b.start();
    in_step_within(LONG, &[&a, &b]);
    // What is changed from now on must not pass for what the lost home had already told.
    b.write("edited", "third, with the old home");
    b.write("after", "4");
    eventually(LONG, "b's new file arrives", || a.read("after").is_some());
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.read("new on b").as_deref(), Some("2"));
    assert_eq!(a.read("new on a").as_deref(), Some("3"));
    // The third version is in the folder; had it become a conflict, the second would be beside it.
    let edits: Vec<String> = a.names().into_iter().filter(|name| name.starts_with("edited")).collect();
    let texts: Vec<_> = edits.iter().filter_map(|name| a.read(name)).collect();
    assert!(texts.contains(&"third, with the old home".to_owned()), "{edits:?} {texts:?}");
    assert!(!a.path("old").exists() || a.read("old").as_deref() == Some("1"));
}

#[test]
fn a_damaged_store_is_said_and_harms_no_file() {
    let (a, mut b) = pair();
    a.write("file", "1");
    eventually(DEADLINE, "it arrives", || b.read("file").is_some());
    in_step(&[&a, &b]);
    b.stop();
    for entry in fs::read_dir(b.home()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("store") {
            let mut file = File::options().write(true).open(entry.path()).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&noise(2000)).unwrap();
        }
    }
    let said = b.run(&["start", "--no-fork", "--no-lan", "--listen-port", "0"]).refused();
    assert!(said.contains("store"), "{said}");
    assert_eq!(b.read("file").as_deref(), Some("1"));
    assert_eq!(a.read("file").as_deref(), Some("1"));
}

/// What a stranger says inside the secure channel, where the messages begin.
#[test]
fn strangers_inside_tls_are_sent_away() {
    let test = "strangers_inside_tls_are_sent_away";
    if Command::new("openssl").arg("version").output().is_err() {
        println!("{test}: not tried, since there is no program openssl here.");
        return;
    }
    let (a, b) = pair();
    a.write("file", "1");
    eventually(DEADLINE, "it arrives", || b.read("file").is_some());
    let get = r#"{"type":"directory.get","path":"../../../../etc/passwd"}"#;
    let climbing = format!("m{}{get}", get.len());
    let beyond = format!("m{}{{", u64::from(u32::MAX) * 2);
    let words: [&[u8]; 5] = [&noise(70_000), &[0; 70_000], climbing.as_bytes(), beyond.as_bytes(), b"m0"];
    for words in words {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-tls1_3", "-alpn", "clearskies/2", "-connect", &a.addr()]);
        let piped = || std::process::Stdio::piped();
        let mut client = client.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        // It may be sent away before it has said all.
        let _ = client.stdin.take().unwrap().write_all(words);
        // It ends when the daemon hangs up.
        let out = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.len() < 4096 && !said.contains("root:"), "{said}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("verify"), "the channel was there: {out:?}");
    }
    a.write("after", "2");
    eventually(DEADLINE, "friends still talk", || b.read("after").is_some());
}

#[test]
fn a_code_that_nobody_made_is_refused_in_words() {
    let (a, stranger) = (Node::running(), Node::running());
    a.write("file", "1");
    a.invite();
    // Well formed, of another share.
    let code = stranger.invite();
    let c = Node::running();
    c.attach(&code, &a, &[]).ok();
    eventually(DEADLINE, "it says so", || c.problems().contains("does not take the access code"));
    assert!(c.names().is_empty());
    c.run(&["detach", &c.share()]).ok();
    c.attach(&a.invite(), &a, &[]).ok();
    in_step(&[&a, &c]);
    assert_eq!(c.problems(), "[]");
}

#[test]
fn folders_that_cannot_be_attached_are_refused() {
    let (a, b) = pair();
    a.write("file", "1");
    in_step(&[&a, &b]);
    let (code, addr) = (a.invite(), a.addr());
    let attach = |path: &str| b.run(&["attach", &code, path, "--peer", &addr]);
    let file = b.beside("a file");
    fs::write(&file, "x").unwrap();
    assert!(attach(&file).refused().contains("is not a folder"));
    let inner = b.path("inner");
    let said = attach(inner.to_str().unwrap()).refused();
    assert!(said.contains("cannot lie inside another"), "{said}");
    assert!(!inner.exists(), "nothing was made before it was refused");
    assert!(attach(&b.beside("")).refused().contains("home"));
    assert!(attach(&format!("{file}/beneath")).refused().contains("a file"));
    // What is missing is made; the code was not used up by the refusals.
    let c = Node::running();
    let missing = c.beside("not there/yet");
    c.run(&["attach", &code, &missing, "--peer", &addr]).ok();
    eventually(DEADLINE, "the file arrives", || Path::new(&missing).join("file").exists());
    in_step(&[&a, &b]);
}

#[test]
fn a_volume_that_is_unmounted_deletes_nothing() {
    let test = "a_volume_that_is_unmounted_deletes_nothing";
    if !is_apart() {
        return run_apart(test, Apart::Mounts);
    }
    let (mut a, b) = (Node::running(), Node::running());
    let volume = a.beside("volume");
    fs::create_dir(&volume).unwrap();
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    mount(&["-t", "tmpfs", "none", &volume]);
    let inside = Path::new(&volume).join("share");
    fs::create_dir(&inside).unwrap();
    let place = a.share();
    mount(&["--bind", inside.to_str().unwrap(), &place]);
    let code = a.invite();
    b.attach(&code, &a, &[]).ok();
    a.write("file", "1");
    a.write("dir/file", "2");
    in_step(&[&a, &b]);
    assert_eq!(b.names(), ["dir", "dir/file", "file"]);
    // Detached while it is in use: the empty folder beneath shows, and the daemon still holds what was there.
    assert!(Command::new("umount").args(["-l", &place]).status().unwrap().success());
    assert!(a.names().is_empty());
    b.write("meanwhile", "3");
    std::thread::sleep(Duration::from_secs(2));
    a.kill();
    a.start();
    let told = || a.status()["state"] == "stopped" && a.problems().contains("volume is not mounted");
    eventually(DEADLINE, "it says so", told);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(b.names(), ["dir", "dir/file", "file", "meanwhile"]);
    assert!(fs::read_dir(&place).unwrap().next().is_none(), "nothing is put where the volume is missing");
    mount(&["--bind", inside.to_str().unwrap(), &place]);
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.names(), b.names());
    assert_eq!(a.problems(), "[]");
}

#[test]
fn a_full_volume_of_the_home_is_reported_and_nothing_is_lost() {
    let test = "a_full_volume_of_the_home_is_reported_and_nothing_is_lost";
    if !is_apart() {
        return run_apart(test, Apart::Mounts);
    }
    let (a, mut b) = (Node::running(), Node::new());
    fs::create_dir(b.home()).unwrap();
    let home = b.home();
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&home);
        assert!(mount.status().unwrap().success());
    };
    mount("size=2m,mode=700");
    b.start();
    let (a, b) = pair_of(a, b);
    let ballast = home.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    for index in 0..300 {
        a.write(&format!("from a {index}"), format!("{index}"));
    }
    b.write("from b", "b");
    eventually(DEADLINE, "b says so", || b.problems().contains("database is full"));
    // The other one is not held up, and hears of nothing that was not recorded.
    a.write("later", "1");
    assert_eq!(b.read("from b").as_deref(), Some("b"));
    drop(file);
    mount("remount,size=100m");
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.names().len(), 302);
    assert_eq!(b.problems(), "[]");
}

#[test]
fn a_store_taken_back_alone_from_a_copy_loses_nothing() {
    let (a, mut b) = pair();
    b.write("old", "1");
    b.write("edited", "1");
    eventually(DEADLINE, "both arrive", || a.names().len() == 2);
    in_step(&[&a, &b]);
    b.stop();
    let saved = b.beside("saved");
    copy(&b.home(), Path::new(&saved));
    b.start();
    b.write("edited", "second");
    b.write("new on b", "2");
    a.write("new on a", "3");
    let arrived = || a.read("edited").as_deref() == Some("second") && a.read("new on b").is_some();
    eventually(DEADLINE, "b's changes arrive", arrived);
    fs::remove_file(a.path("old")).unwrap();
    eventually(DEADLINE, "a's arrive", || !b.path("old").exists() && b.read("new on a").is_some());
    in_step(&[&a, &b]);
    b.stop();
    // The store of yesterday, beside all else as it is today.
    let is_store = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("store");
    for entry in fs::read_dir(b.home()).unwrap().flatten().filter(|entry| is_store(&entry.file_name())) {
        fs::remove_file(entry.path()).unwrap();
    }
    for entry in fs::read_dir(&saved).unwrap().flatten().filter(|entry| is_store(&entry.file_name())) {
        fs::copy(entry.path(), b.home().join(entry.file_name())).unwrap();
    }
    b.write("edited", "third");
    b.start();
    b.write("after", "4");
    eventually(LONG, "b's new file arrives", || a.read("after").is_some());
    in_step_within(LONG, &[&a, &b]);
    assert_eq!(a.read("new on b").as_deref(), Some("2"));
    assert_eq!(a.read("new on a").as_deref(), Some("3"));
    let edits: Vec<String> = a.names().into_iter().filter(|name| name.starts_with("edited")).collect();
    let texts: Vec<_> = edits.iter().filter_map(|name| a.read(name)).collect();
    assert!(texts.contains(&"third".to_owned()), "{edits:?} {texts:?}");
}

#[test]
fn a_folder_that_is_emptied_deletes_nothing() {
    let (a, b) = pair();
    for index in 0..60 {
        a.write(&format!("dir {}/{index}", index % 3), "x");
    }
    eventually(DEADLINE, "all arrive", || b.names().len() == 63);
    in_step(&[&a, &b]);
    // With the program's own folder: as a volume that was formatted anew. Without it: as a user who cleans up.
    for entry in fs::read_dir(a.path("")).unwrap().flatten() {
        fs::remove_dir_all(entry.path()).unwrap();
    }
    eventually(DEADLINE, "it says so", || a.status()["state"] == "stopped" && a.problems().contains("share"));
    b.write("meanwhile", "1");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(b.names().len(), 64);
    assert!(b.archive().is_empty());
    // As it says: detached and attached again, all of it comes back.
    a.run(&["detach", &a.share()]).ok();
    a.attach(&b.invite(), &b, &["--merge"]).ok();
    in_step(&[&a, &b]);
    assert_eq!(a.names().len(), 64);

    for entry in fs::read_dir(a.path("")).unwrap().flatten() {
        if entry.file_name() != ".clearskies" {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    eventually(DEADLINE, "it asks", || a.problems().contains("are gone at once"));
    b.write("later", "2");
    eventually(DEADLINE, "others go on", || a.read("later").is_some());
    assert_eq!(b.names().len(), 65);
}

/// Whether a change deep beneath a folder arrives, which is made when all that was before is in step.
fn is_followed(a: &Node, b: &Node, path: &str) {
    in_step(&[a, b]);
    a.write(path, "later");
    eventually(DEADLINE, path, || b.read(path).as_deref() == Some("later"));
}

#[test]
fn a_folder_that_was_away_for_a_moment_is_followed() {
    let (a, b) = pair();
    a.write("x/sub/file", "1");
    in_step(&[&a, &b]);
    std::fs::rename(a.path("x"), a.path("y")).unwrap();
    std::fs::rename(a.path("y"), a.path("x")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    is_followed(&a, &b, "x/sub/file");
}

/// File systems give a new folder the inode of one that has just gone.
#[test]
fn a_folder_that_is_made_anew_at_once_is_followed() {
    let (a, b) = pair();
    for round in 0..4 {
        if round > 0 {
            std::fs::remove_dir_all(a.path("x")).unwrap();
        }
        for sub in 0..4 {
            a.write(&format!("x/{sub}/u/file"), format!("{round}"));
        }
        std::thread::sleep(Duration::from_secs(1));
        let arrived = || (0..4).all(|sub| b.read(&format!("x/{sub}/u/file")) == Some(round.to_string()));
        eventually(DEADLINE, "the new folder", arrived);
        is_followed(&a, &b, &format!("x/{}/u/later", round % 4));
    }
}
