//! Tables that are written by hand have a row for each thing that the code has, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use federation::config::FederationConfig;
use gateway::config::GatewayConfig;
use gateway::error::Kind;
use gateway::respond::Answer;
use serde_json::{Map, Value};
use xtask::markdown;
use xtask::repo::Repo;

const CONFIG_PAGE: &str = "docs/reference/config.md";
/// A field that no file has.
const STRANGER: &str = "xyzzy";

#[test]
fn configuration_tables_have_the_fields_of_the_parsers() {
    let repo = Repo::here().unwrap();
    let page = repo.text(CONFIG_PAGE).unwrap();
    check_config(page, federation::config::KIND, "fedgate-federation", &|text| {
        FederationConfig::from_yaml(text, Path::new("f.yaml")).map(drop).map_err(|e| e.to_string())
    });
    check_config(page, gateway::config::KIND, "fedgate-gateway", &|text| {
        GatewayConfig::from_yaml(text, Path::new("g.yaml")).map(drop).map_err(|e| e.to_string())
    });
}

/// Maps whose names are the user's own.
const FREE_MAPS: [&str; 1] = ["/kubernetes/gatewaySelector"];

/// The examples of a process: a whole file, and one with the sections of the part below it in place of
/// its own. Both are taken by the parser; together they have every field that the parser names when it
/// meets a stranger, and the two tables have every field of the examples.
fn check_config(page: &str, kind: &str, heading: &str, parse: &dyn Fn(&str) -> Result<(), String>) {
    let (head, part) = if kind == federation::config::KIND {
        (heading, "In a Kubernetes cluster")
    } else {
        (heading, "In a pod")
    };
    let [whole, mut changed] = [head, part].map(|heading| example(page, heading));
    let sections = changed.as_object().expect("an example is a map").clone();
    changed = whole.clone();
    changed.as_object_mut().expect("an example is a map").extend(sections);
    let examples = [whole, changed];
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for example in &examples {
        parse(&example.to_string()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        for place in maps_of(example, "") {
            let map = example.pointer(&place).and_then(Value::as_object);
            let names = map.expect("the place was found in it").keys().cloned();
            shown.entry(place).or_default().extend(names);
        }
    }
    for (place, shown) in &shown {
        let has_it = |example: &&Value| example.pointer(place).is_some();
        let mut stranger = examples.iter().find(has_it).expect("it is of one of them").clone();
        let map = stranger.pointer_mut(place).and_then(Value::as_object_mut);
        map.expect("it is a map").insert(STRANGER.into(), Value::from(1));
        let error = parse(&stranger.to_string()).expect_err("a stranger is refused");
        assert_eq!(expected_fields(&error), *shown, "{kind} {place:?}: {error}");
    }
    let leaves: BTreeSet<String> = examples.iter().flat_map(|one| leaves_of(one, "")).collect();
    let rows: BTreeSet<String> =
        [head, part].into_iter().flat_map(|heading| first_column(page, heading)).collect();
    assert_eq!(rows, leaves, "{CONFIG_PAGE}, {heading}");
}

/// The first YAML below a heading.
fn example(page: &str, heading: &str) -> Value {
    let start = page.lines().position(|line| line.trim_start_matches('#').trim() == heading);
    let start = start.unwrap_or_else(|| panic!("{CONFIG_PAGE} has no heading {heading:?}"));
    let fences = markdown::fences(page);
    let fence = fences.iter().find(|fence| fence.language == "yaml" && fence.line > start);
    let fence = fence.unwrap_or_else(|| panic!("no example below {heading:?}"));
    serde_saphyr::from_str(&fence.text).unwrap_or_else(|error| panic!("{heading}: {error}"))
}

/// JSON pointers to every map.
fn maps_of(value: &Value, place: &str) -> Vec<String> {
    let inner = |(step, inner): (String, &Value)| maps_of(inner, &format!("{place}/{step}"));
    match value {
        Value::Object(_) if FREE_MAPS.contains(&place) => Vec::new(),
        Value::Object(map) => {
            let below = map.iter().map(|(name, inner)| (name.clone(), inner)).flat_map(inner);
            std::iter::once(place.to_owned()).chain(below).collect()
        }
        Value::Array(list) => {
            let items = list.iter().enumerate();
            items.map(|(index, item)| (index.to_string(), item)).flat_map(inner).collect()
        }
        _ => Vec::new(),
    }
}

/// `sockets.resource`, `advertise[].host`, `enrolment.uids`.
fn leaves_of(value: &Value, name: &str) -> Vec<String> {
    let fields = |map: &Map<String, Value>| {
        let dot = if name.is_empty() { "" } else { "." };
        let inner = |(field, value)| leaves_of(value, &format!("{name}{dot}{field}"));
        map.iter().flat_map(inner).collect()
    };
    match value {
        Value::Object(_) if FREE_MAPS.contains(&&*format!("/{}", name.replace('.', "/"))) => {
            vec![name.to_owned()]
        }
        Value::Object(map) => fields(map),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().flat_map(|item| leaves_of(item, &format!("{name}[]"))).collect()
        }
        _ => vec![name.to_owned()],
    }
}

/// What a parser says that it expected: names, bare or in backticks.
fn expected_fields(error: &str) -> BTreeSet<String> {
    let (_, list) = error.rsplit_once("expected ").unwrap_or_else(|| panic!("{error}"));
    let list = list.split(';').next().unwrap_or_default().trim_start_matches("one of ");
    let words = list.split([',', ' ']).map(|word| word.trim_matches('`'));
    words.filter(|word| !word.is_empty() && *word != "or").map(str::to_owned).collect()
}

#[test]
fn the_operator_api_has_the_procedures_of_its_schema() {
    let repo = Repo::here().unwrap();
    let schema = repo.text("wire/proto/operator.proto").unwrap();
    let procedures = schema.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let procedures: BTreeSet<String> =
        procedures.map(|line| line.split('(').next().unwrap_or_default().to_owned()).collect();
    assert!(procedures.len() >= 6, "{procedures:?}");
    let page = repo.text("docs/reference/operator-api.md").unwrap();
    // A row may be about several procedures that belong together.
    let tables = ["Procedures that look", "Procedures that change something"];
    let cells = tables.iter().flat_map(|heading| first_column(page, heading));
    let mut named = BTreeSet::new();
    for cell in cells {
        named.extend(cell.split(", ").map(|name| name.trim_matches('`').to_owned()));
    }
    assert_eq!(named, procedures);
}

#[test]
fn the_access_log_has_the_fields_of_its_writer() {
    let repo = Repo::here().unwrap();
    let writer = repo.text("gateway/src/access_log.rs").unwrap();
    // `line.text("name", ...)`, whichever way it is broken into lines.
    let calls = writer.split("line.").skip(1).filter_map(|rest| rest.split_once('('));
    let names = calls.filter_map(|(_, arguments)| {
        let name = arguments.trim_start().strip_prefix('"')?.split('"').next()?;
        Some(name.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() >= 20, "{names:?}");
    let page = repo.text("docs/reference/access-log.md").unwrap();
    assert_eq!(first_column(page, "Fields"), names);
}

#[test]
fn the_admin_page_has_the_routes_of_the_admin_port() {
    let repo = Repo::here().unwrap();
    let source = repo.text("gateway/src/admin.rs").unwrap();
    let calls = source.lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    let mut routes = BTreeSet::new();
    for (path, handlers) in calls.filter_map(|call| call.split_once('"')) {
        for method in ["get", "post"].iter().filter(|m| handlers.contains(&format!("{m}("))) {
            routes.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(routes.len() >= 6, "{routes:?}");
    let page = repo.text("docs/reference/admin.md").unwrap();
    assert_eq!(first_column(page, "Endpoints"), routes);
}

#[test]
fn the_table_of_failures_is_what_clients_are_told() {
    let repo = Repo::here().unwrap();
    let page = repo.text("docs/reference/http.md").unwrap();
    let shown: BTreeSet<Vec<String>> = rows(page, "Failures")
        .into_iter()
        .map(|row| row.into_iter().take(5).map(|cell| cell.trim_matches('`').to_owned()).collect())
        .collect();
    let told = Kind::ALL.iter().map(|kind| {
        let Answer { status, grpc, flag, code } = Answer::to(*kind);
        let code = code.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let (name, status) = (format!("{kind:?}"), status.as_u16().to_string());
        vec![name, status, grpc.to_string(), flag.to_owned(), code]
    });
    let told: BTreeSet<Vec<String>> = told.collect();
    assert_eq!(shown, told);
}

#[test]
fn a_missing_or_a_strange_row_would_be_found() {
    let page = "## A\n\n| f | t |\n|---|---|\n| `a.b` | x |\n| `c` | y |\n\n\
        | other |\n|---|\n| `d` |\n\n## B\n| g |\n|---|\n| `e` |\n";
    assert_eq!(first_column(page, "A"), BTreeSet::from(["a.b".to_owned(), "c".to_owned()]));
    assert_eq!(first_column(page, "B"), BTreeSet::from(["e".to_owned()]));
    let whole: Value =
        serde_json::from_str(r#"{"a": {"b": 1}, "c": [{"d": 1}], "e": [1]}"#).unwrap();
    assert_eq!(maps_of(&whole, ""), ["", "/a", "/c/0"]);
    assert_eq!(leaves_of(&whole, ""), ["a.b", "c[].d", "e"]);
    for error in ["unknown field `x`, expected one of a, b; see", "expected `a` or `b`"] {
        assert_eq!(expected_fields(error), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }
}

/// The first cells of the first table below a heading, without their backticks.
fn first_column(page: &str, heading: &str) -> BTreeSet<String> {
    let cells = rows(page, heading).into_iter().filter_map(|row| row.into_iter().next());
    cells.map(|cell| cell.trim_matches('`').to_owned()).collect()
}

/// The rows of the first table below a heading, without its head.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    let table = lines.skip_while(|line| !line.starts_with("|---"));
    let body = table.skip(1).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect();
    body.map(cells).collect()
}
