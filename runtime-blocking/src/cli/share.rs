//! Making, joining and leaving shares.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clearskies_core::club::code::{Invitation, PeerAddress};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use super::args::{Attach, Mode, Share};
use super::{Failure, Outcome, absolute, folder, items, progress, resolve, say, text};
use crate::control::client::{Client, Refusal};
use crate::daemon::{self, home::Home};

/// Addresses that go into a link; more make the QR code unreadable.
const LINK_ADDRESSES_MAX: usize = 4;
/// What the daemon takes with one code.
const PEERS_MAX: usize = 16;

/// `create`: makes a share of a folder.
pub(super) fn create(home: &Home, path: &Path) -> Outcome {
    let path = folder(path)?;
    let reply = daemon::reach(home)?.ask(&json!({ "type": "create_share", "path": path }))?;
    let path = text(&reply["path"]);
    if reply["new"] == false {
        return say(&format!("{path} is a share already."));
    }
    say(&format!("{path} is a share now. `clearskies share` prints an access code for it."))
}

/// `share`: makes a share if need be, and prints an access code as the last line of standard output.
pub(super) fn share(home: &Home, share: &Share) -> Outcome {
    if share.mode != Mode::ReadWrite {
        return Err(Failure(
            "Read-only and untrusted access codes are not there yet; only --mode=read-write is.".into(),
        ));
    }
    let path = folder(&share.path)?;
    let mut client = daemon::reach(home)?;
    let made = client.ask(&json!({ "type": "create_share", "path": path }))?;
    let request = json!({ "type": "create_access_code", "path": made["path"], "mode": "read_write" });
    let reply = client.ask(&request)?;
    let code = text(&reply["access_code"]);
    let url = text(&reply["url"]);
    let shown = if share.link { link(&mut client, &url)? } else { code };
    let mut out = io::stdout();
    if out.is_terminal() {
        writeln!(out, "{} is shared. On the other computer:\n", text(&made["path"]))?;
        writeln!(out, "    clearskies attach {} DIR\n", quoted(&shown))?;
        if let Some(code) = qr(if share.link { &shown } else { &url }) {
            writeln!(out, "{code}\n")?;
        }
        writeln!(
            out,
            "The access code lets one computer in, within 24 hours, to read and change everything:\n"
        )?;
    }
    Ok(writeln!(out, "{shown}")?)
}

/// The link with this node's addresses.
fn link(client: &mut Client, url: &str) -> Result<String, Failure> {
    let address = client.ask(&json!({ "type": "address" }))?;
    let damaged = |_| Failure("The daemon gave a damaged link; is it another version?".into());
    let mut invitation = Invitation::parse(url).map_err(damaged)?;
    let addrs = items(&address, "addresses").iter().filter_map(Value::as_str);
    invitation.addrs = addrs.filter_map(PeerAddress::parse).take(LINK_ADDRESSES_MAX).collect();
    Ok(invitation.to_url())
}

/// As a shell takes it: a link has characters that mean something there.
fn quoted(code: &str) -> String {
    if code.contains(['?', '&']) { format!("'{code}'") } else { code.to_owned() }
}

/// A QR code for a terminal; none if the text is too long for one.
fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    // Terminals are mostly dark, and readers want dark on light.
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// `attach`: joins a share with a code.
pub(super) fn attach(home: &Home, attach: &Attach) -> Outcome {
    let invitation = Invitation::parse(&attach.code).map_err(|error| Failure(error.to_string()))?;
    let peers = peers(attach, &invitation)?;
    let path = absolute(&attach.path)?;
    let mut client = daemon::reach(home)?;
    let request = json!({
        "type": "add_share",
        "code": attach.code,
        "path": path,
        "merge": attach.merge,
        "replace": attach.replace,
        "peers": peers,
    });
    let reply = client.ask(&request).map_err(|refusal| explained(refusal, &path))?;
    let path = text(&reply["path"]);
    if reply["new"] == false {
        say(&format!("{path} is part of this share already."))?;
    } else {
        say(&format!("{path} joins the share as soon as a computer that knows the code is found."))?;
    }
    if io::stdout().is_terminal() {
        return progress::show(&mut client, Some(&path));
    }
    say("`clearskies status` shows how far it is.")
}

/// Where members may be: what the user says, and the names in a link, which only we can look up.
fn peers(attach: &Attach, invitation: &Invitation) -> Result<Vec<String>, Failure> {
    let mut peers = Vec::new();
    for peer in &attach.peers {
        peers.extend(resolve(peer)?);
    }
    for addr in &invitation.addrs {
        // A name that nobody knows any more must not keep the others from being tried.
        if let PeerAddress::Name { .. } = addr
            && let Ok(addrs) = resolve(&addr.to_string())
        {
            peers.extend(addrs);
        }
    }
    peers.truncate(PEERS_MAX);
    Ok(peers)
}

/// A refusal because of the folder's contents comes with the two ways on.
fn explained(refusal: Refusal, path: &str) -> Failure {
    if refusal.code != "not_empty" {
        return refusal.into();
    }
    Failure(format!(
        "{path} has contents. Say what to do with them:\n  \
         --merge    unites them with the share's; files that differ under one name are kept as conflict files\n  \
         --replace  makes the folder like the share; what differs here goes to the archive"
    ))
}

/// `detach`: ends sharing of a folder here.
pub(super) fn detach(home: &Home, path: &Path) -> Outcome {
    let path = folder(path)?;
    daemon::reach(home)?.ask(&json!({ "type": "remove_share", "path": path }))?;
    say(&format!("{path} is no share any more. Its files stay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_folder_is_explained() {
        let refusal = Refusal { code: "not_empty".into(), message: "no".into() };
        let Failure(sentence) = explained(refusal, "/d");
        assert!(sentence.contains("/d") && sentence.contains("--merge") && sentence.contains("--replace"));
        let refusal = Refusal { code: "nested".into(), message: "It lies in another share.".into() };
        assert_eq!(explained(refusal, "/d").0, "It lies in another share.");
    }

    #[test]
    fn a_code_has_a_qr_code() {
        let code = qr("clearskies://directory/SYNCABCDEFGHIJKLMNOPQRSTUVWXYZ234").unwrap();
        assert!(code.lines().count() < 30);
        assert!(qr(&"x".repeat(5000)).is_none());
    }

    #[test]
    fn a_link_survives_the_shell() {
        assert_eq!(quoted("SYNCABC"), "SYNCABC");
        assert_eq!(
            quoted("clearskies://directory/SYNC?a=h:1&k=00"),
            "'clearskies://directory/SYNC?a=h:1&k=00'"
        );
    }
}
