//! Founding, tokens, the store: against one node, and what is said to a cluster that is alone.

use std::fs;

use crate::fixture::Node;

#[test]
fn a_cluster_that_is_alone_is_told_how_not_to_be() {
    let node = Node::start();
    for arguments in [&["token", "issue", "west"][..], &["store", "transfer"], &["leave", "--yes"]]
    {
        let said = node.fails(1, arguments);
        let want = "error: this cluster is in no federation (FED";
        assert!(said.contains(want), "{arguments:?}: {said}");
        assert!(said.contains("\nhint: run `fedctl init` to found one"), "{arguments:?}: {said}");
    }
    assert!(node.ok(&["store", "peers"]).contains("fedctl init, or fedctl join TOKEN"));
    assert_eq!(node.ok(&["join", "--list"]), "No cluster waits for approval here.\n");
    let said = node.fails(1, &["join", "--approve", "west"]);
    assert!(said.contains("no cluster \"west\" waits for approval here"), "{said}");
}

#[test]
fn dangerous_commands_ask_nobody_without_a_terminal() {
    let node = Node::start();
    for arguments in [&["leave"][..], &["leave", "west"], &["store", "recover"]] {
        let said = node.fails(2, arguments);
        assert!(
            said.contains("Nobody can be asked here\nhint: add --yes"),
            "{arguments:?}: {said}"
        );
    }
    assert!(
        !node.path("data/audit.log").exists() || !node.read("data/audit.log").contains("Leave")
    );
}

#[test]
fn a_federation_is_founded_and_its_store_told_of() {
    let mut node = Node::start();
    let said = node.fedctl(&["init"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("Federation ") && said.out.contains(" founded.\n"), "{said:?}");
    assert!(said.err.contains("Next: fedctl token issue NAME"), "{said:?}");
    let again = node.fails(1, &["init"]);
    assert!(again.contains("this cluster is in the federation"), "{again}");
    let status = node.ok(&["store", "status"]);
    assert!(
        status.contains("This node:  leader\n") && status.contains("Voters:     east\n"),
        "{status}"
    );
    let peers = node.ok(&["store", "peers"]);
    assert!(peers.contains("east *") && peers.contains("admit,admin,export"), "{peers}");

    let verdict = node.ok(&["store", "verify", "--all"]);
    assert!(verdict.starts_with("✓ own state verified: "), "{verdict}");
    let saved = node.ok(&["store", "snapshot", "save", "backup.fed"]);
    assert!(saved.starts_with("Saved and verified backup.fed: revision "), "{saved}");
    assert!(
        node.ok(&["store", "snapshot", "verify", "backup.fed"]).starts_with("Verified backup.fed")
    );
    let mut bytes = fs::read(node.path("backup.fed")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(node.path("damaged.fed"), bytes).unwrap();
    let said = node.fails(1, &["store", "snapshot", "inspect", "damaged.fed"]);
    assert!(said.starts_with("error: "), "{said}");
    node.restart();
    node.until(&["store", "status"], |said| said.out.contains("This node:  leader\n"));
}

#[test]
fn the_text_of_a_token_is_kept_nowhere() {
    let mut node = Node::start();
    node.ok(&["init"]);
    // Its one address does not answer: without --force nobody could use the token.
    let said = node.fails(1, &["token", "issue", "west"]);
    assert!(said.contains("(FED6305)\n  quic gw.east.invalid:8443: "), "{said}");
    assert!(said.contains("\nhint: ") && said.contains("--force"), "{said}");
    let said = node.fedctl(&["token", "issue", "west", "--force", "--expires", "1h", "--approve"]);
    assert_eq!(said.code, 0, "{said:?}");
    let token = said.out.trim().to_string();
    assert!(token.starts_with("fedgate1.") && token.lines().count() == 1, "{said:?}");
    assert!(
        !said.err.contains(&token) && said.err.contains("fedctl join --approve west"),
        "{said:?}"
    );
    let list = node.ok(&["token", "list"]);
    assert!(list.contains("open, needs approval"), "{list}");
    let id = list.lines().nth(1).unwrap().split(' ').next().unwrap().to_string();

    // An altered token is refused before anything is tried, and its text is not repeated.
    let altered = format!("{}A", &token[..token.len() - 1]);
    let altered = if altered == token { format!("{token}A") } else { altered };
    for arguments in [&["join", &*altered][..], &["join", "--pre", &*altered]] {
        let said = node.fails(2, arguments);
        assert!(!said.contains(&altered) && said.contains("token"), "{said}");
    }

    assert_eq!(node.ok(&["token", "revoke", &id]), "");
    assert!(node.ok(&["token", "list"]).contains("revoked"));
    let said = node.fails(2, &["token", "revoke", "west"]);
    assert!(said.contains("is no token's id"), "{said}");
    let record = node.ok(&["audit", "list"]);
    assert!(record.contains("IssueToken") && record.contains("RevokeToken"), "{record}");
    node.stop();
    let secret = &token["fedgate1.".len()..];
    let pieces = [secret, &secret[..40], &secret[secret.len() - 40..]];
    let mut looked_at = 0;
    let mut folders = vec![node.path("data")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                let text = String::from_utf8_lossy(&bytes);
                assert!(!pieces.iter().any(|piece| text.contains(piece)), "{}", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 5, "{looked_at}");
}

#[test]
fn a_namespace_is_granted() {
    let node = Node::start();
    let dry = node.ok(&[
        "namespace",
        "grant",
        "shop",
        "team-a-*",
        "--clusters",
        "west,south",
        "--dry-run",
    ]);
    assert!(dry.contains("kind: NamespaceGrant") && dry.contains("prefix: team-a-"), "{dry}");
    let done = node.ok(&["namespace", "grant", "shop", "--clusters", "west"]);
    assert_eq!(done, "NamespaceGrant/shop created\n");
    assert!(
        node.until(&["get", "grants"], |said| said.out.contains("shop")).out.starts_with("NAME ")
    );
    assert_eq!(node.ok(&["delete", "grant", "shop"]), "NamespaceGrant/shop deleted\n");
}
