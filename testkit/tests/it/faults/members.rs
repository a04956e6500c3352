//! Members that are too much: one beyond its quota, one that comes and goes, one that says nonsense, one
//! that stands still.

use std::time::{Duration, Instant};

use testkit::outside::Outside;
use testkit::scenes::joins;
use testkit::sites::{Distance, LIMIT};
use testkit::{Sites, wait};

const EAST: usize = 0;
const WEST: usize = 1;
const NORTH: usize = 3;
/// One more than a cluster may have in the store.
const NAMESPACES: usize = 1025;
const PER_FILE: usize = 100;
const JOINS: usize = 5;
const CHANGES: usize = 60;

#[test]
fn a_member_that_is_too_much_harms_only_itself() {
    let names = ["east", "west", "south", "north"];
    let mut sites = Sites::prepare(&names, Distance::NONE).unwrap();
    sites.run().unwrap();
    sites.federate().unwrap();
    sites.serve(WEST, "api").unwrap();
    sites.export(WEST, "api", &["east"]).unwrap();
    sites.route(EAST, &["api"]).unwrap();
    sites.until_answer(EAST, "api", WEST);
    let outside = Outside::start(&sites.target(EAST, "api"), 2);

    one_says_nonsense(&sites);
    one_stands_still_while_much_changes(&sites);
    one_comes_and_goes(&sites);
    one_is_beyond_its_quota(&sites);

    outside.more(50);
    let seen = outside.end();
    println!("meanwhile: {seen}");
    seen.assert_clean();
}

/// Broken, blank, huge, circular, and a pattern that is none.
fn one_says_nonsense(sites: &Sites) {
    let node = sites[WEST].federation.as_ref().unwrap().id();
    let huge = format!("# {}\n", "x".repeat(4 * 1024 * 1024));
    let route = |name: &str, path: &str| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate}}]
  hostnames: [{name}.example]
  rules:
  - matches: [{{path: {path}}}]
    backendRefs: [{{name: {name}, port: 80}}]
"
        )
    };
    let poison = [
        ("broken", "kind: [".to_owned()),
        (
            "blank",
            "apiVersion: v1\nkind: Service\nmetadata: {name: \"\", namespace: \"\"}\n".into(),
        ),
        ("pattern", route("pattern", "{type: RegularExpression, value: \"(((\"}")),
        ("nobody", route("nobody", "{type: PathPrefix, value: /}")),
        ("huge", huge),
    ];
    for (name, text) in &poison {
        sites[WEST].write_manifest(&format!("poison-{name}"), text).unwrap();
    }
    wait::until_ok("words about each file", LIMIT, || {
        let told = sites[WEST].fedctl(&["diagnostics"])?;
        for name in ["broken", "blank", "pattern", "huge"] {
            anyhow::ensure!(told.contains(&format!("poison-{name}")), "{name} in {told}");
        }
        Ok(())
    });
    sites.until_answer(EAST, "api", WEST);
    for (name, _) in &poison {
        let path = sites[WEST].spec.folder.join(format!("manifests/poison-{name}.yaml"));
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(sites[WEST].federation.as_ref().unwrap().id(), node);
}

/// The watcher: nobody waits for it, and it has everything soon after.
fn one_stands_still_while_much_changes(sites: &Sites) {
    let north = sites[NORTH].federation.as_ref().unwrap();
    north.pause().unwrap();
    let begun = Instant::now();
    for number in 0..CHANGES {
        let grant = format!("n-{number}");
        let words = ["namespace", "grant", &grant, "--clusters", "east"];
        sites[EAST].fedctl(&words).unwrap();
    }
    let took = begun.elapsed();
    let wanted = generation(sites, EAST, "east");
    north.resume().unwrap();
    let resumed = Instant::now();
    wait::until("north to have what it missed", LIMIT, || {
        (generation(sites, NORTH, "east")? >= wanted?).then_some(())
    });
    println!(
        "{CHANGES} changes in {took:?} while a Replica stood still; it had them {:?} later",
        resumed.elapsed()
    );
}

fn generation(sites: &Sites, at: usize, of: &str) -> Option<u64> {
    let members = sites[at].json(&["store", "peers"]).ok()?;
    let rows = members["items"].as_array()?;
    rows.iter().find(|row| row["name"] == of)?["generation"].as_u64()
}

/// North leaves and joins again; the voters stay who they are.
fn one_comes_and_goes(sites: &Sites) {
    let before = sites.settled().unwrap();
    let mut times = Vec::new();
    for _ in 0..JOINS {
        sites[NORTH].fedctl(&["leave", "--yes"]).unwrap();
        let taken = sites[EAST].fedctl(&["token", "issue", "west", "--roles", "none"]);
        let taken = taken.and_then(|token| sites[NORTH].fedctl(&["join", token.trim()]));
        let taken = taken.unwrap_err().to_string();
        assert!(taken.contains("FED6116") || taken.contains("FED6115"), "{taken}");
        times.push(joins::come_back(sites, EAST, NORTH).unwrap());
    }
    println!("north came back {JOINS} times, each in {:?} at most", times.iter().max());
    assert_eq!(sites.settled().unwrap(), before, "voters had to do with it");
}

/// West exports from more namespaces than it may have, all named before that of the service which is
/// called all the while. What is new is left out and named, and others write as ever.
fn one_is_beyond_its_quota(sites: &Sites) {
    let object = |number: usize| {
        format!(
            "\
apiVersion: v1
kind: Service
metadata: {{name: s, namespace: a-{number}}}
spec:
  ports: [{{name: http, port: 80, appProtocol: http}}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{name: s, namespace: a-{number}}}
---
"
        )
    };
    for first in (0..NAMESPACES).step_by(PER_FILE) {
        let last = (first + PER_FILE).min(NAMESPACES);
        let text: String = (first..last).map(object).collect();
        sites[WEST].write_manifest(&format!("quota-{first}"), &text).unwrap();
    }
    wait::until_ok("words about the quota", LIMIT, || {
        let told = sites[WEST].fedctl(&["diagnostics"])?;
        anyhow::ensure!(told.contains("FED6107"), "{told}");
        Ok(())
    });
    let begun = Instant::now();
    sites[EAST].fedctl(&["namespace", "grant", "as-ever", "--clusters", "east"]).unwrap();
    println!("another member wrote in {:?} while one is beyond its quota", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10));
    sites.until_answer(EAST, "api", WEST);
}
