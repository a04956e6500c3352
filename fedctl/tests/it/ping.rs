//! `fedctl ping`: its command line, what it prints, and how it exits.

use wire::resource::proto::{LinkError, LinkState, PathMtu, PingedLink};

use crate::fixture::Node;
use crate::gateway::{Gateway, Pings, link, report, write_peer};

fn answered(answered: u32) -> PingedLink {
    let some = |us| (answered > 0).then_some(us);
    PingedLink {
        link: Some(link(LinkState::Live)),
        sent: 5,
        answered,
        min_us: some(17_900),
        avg_us: some(18_100),
        max_us: some(19_000),
        packets_sent: 61,
        packets_lost: 2,
        mtu: Some(PathMtu { current_bytes: 1200, max_bytes: 1452, ..PathMtu::default() }),
    }
}

fn down() -> PingedLink {
    let mut link = link(LinkState::Down);
    let text = "nothing answered for 3 s".into();
    link.last_error = Some(LinkError { code: 2001, text, age_ms: 400 });
    PingedLink { link: Some(link), ..PingedLink::default() }
}

#[test]
fn a_bad_question_names_what_is_wrong_with_it() {
    let node = Node::start();
    for (arguments, code, wanted) in [
        (&["ping"][..], 2, "<CLUSTER>"),
        (&["ping", "west", "--count", "0"], 2, "0 is not in 1..=100"),
        (&["ping", "west", "-c", "101"], 2, "101 is not in 1..=100"),
        (&["ping", "West"], 2, "cluster: "),
        (&["ping", "east"], 2, "error: east is this cluster"),
        (&["ping", "nowhere"], 1, "error: nowhere is no peer of this cluster (FED4007)\nhint: "),
        (&["ping", "west", "-o", "short"], 2, "-o short is for"),
    ] {
        let said = node.fails(code, arguments);
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    write_peer(&node);
    let said = node.fails(1, &["ping", "west"]);
    assert!(said.starts_with("error: no gateway is connected to this node"), "{said}");
    assert!(said.contains("(FED1119)\nhint: "), "{said}");
}

#[test]
fn what_the_gateways_measured_is_told_and_makes_the_exit_code() {
    let mut node = Node::start();
    write_peer(&node);
    let gateway =
        |node: &Node, links| Gateway::connect(node, report("gw-0"), Pings::Answered(links));
    let first = gateway(&node, vec![answered(5), down()]);
    let said = node.ok(&["ping", "west"]);
    assert!(said.contains("FED2001 nothing answered for 3 s (0.4s ago)"), "{said}");
    assert!(
        said.ends_with(
            "west answers: 5 of 5 probes, 17.9 ms / 18.1 ms / 19.0 ms (min / avg / max).\n"
        ),
        "{said}"
    );
    assert!(!said.contains("1200/1452"), "{said}");
    assert!(node.ok(&["ping", "west", "--mtu"]).contains("1200/1452"));
    let said = node.ok(&["ping", "west", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&report["kind"], &report["items"][0]["gateway"]),
        (&"PingReport".into(), &"gw-0".into())
    );
    assert_eq!(report["items"][0]["links"][1]["lastError"]["code"], "FED2001");
    drop(first);

    node.restart();
    let _second = gateway(&node, vec![answered(0), down()]);
    let said = node.fedctl(&["ping", "west"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.ends_with("west does not answer: 0 of 5 probes.\n"), "{said:?}");
}

#[test]
fn a_gateway_that_does_not_know_pings_or_is_late_is_told_of() {
    let node = Node::start();
    write_peer(&node);
    let old = Gateway::connect(&node, report("gw-old"), Pings::Unknown);
    let said = node.fails(1, &["ping", "west"]);
    let wanted = "error: no gateway has measured: gw-old: it does not support ping (version 0.0.9) \
                  (FED1124)\nhint: upgrade it\n";
    assert_eq!(said, wanted);
    let _late = Gateway::connect(&node, report("gw-late"), Pings::Unanswered);
    let said = node.fails(4, &["ping", "west", "-c", "1"]);
    assert!(said.contains("gw-late: it did not answer within 5.2s (FED1119)"), "{said}");

    let _well = Gateway::connect(&node, report("gw-0"), Pings::Answered(vec![answered(5)]));
    let said = node.ok(&["ping", "west", "-c", "1"]);
    let wanted = "gw-old: it does not support ping (version 0.0.9) (FED1124); upgrade it";
    assert!(said.contains(wanted), "{said}");
    assert!(said.contains("gw-late: it did not answer within"), "{said}");
    drop(old);
    let wanted = "gw-old: it is not connected to this node (FED1119)";
    node.until(&["ping", "west", "-c", "1"], |said| said.code == 0 && said.out.contains(wanted));
}
