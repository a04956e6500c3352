//! Rights in the cluster: the least, and the same in the charts as in the reference page.

use std::collections::BTreeSet;

use serde_json::Value;
use xtask::repo::Repo;

use super::{Render, list, name_of};

const PAGE: &str = "docs/reference/kubernetes-objects.md";
const CLUSTER_RULES: &str = "helm/fedgate/files/cluster-rules.yaml";
const NAMESPACE_RULES: &str = "helm/fedgate/files/namespace-rules.yaml";

/// In names of the rules: what the chart takes the place of.
const FULLNAME: &str = "{{ include \"fedgate.fullname\" . }}";

/// Group, resource, name of the object (or none), verb.
type Right = (String, String, String, String);

#[test]
fn the_reference_has_the_rights_of_the_chart() {
    let repo = Repo::here().unwrap();
    let page = repo.text(PAGE).unwrap();
    for (heading, file) in [("### ClusterRole", CLUSTER_RULES), ("### Role", NAMESPACE_RULES)] {
        let rules: Vec<Value> = serde_saphyr::from_str(&rendered(&repo, file)).unwrap();
        let (told, given) = (rights_of_table(page, heading), rights_of(&rules));
        let missing: Vec<_> = given.difference(&told).collect();
        let vain: Vec<_> = told.difference(&given).collect();
        assert!(missing.is_empty(), "{PAGE} lacks rights of {file}: {missing:?}");
        assert!(vain.is_empty(), "{file} lacks rights of {PAGE}: {vain:?}");
    }
}

#[test]
fn rights_are_rendered_as_they_stand_and_each_has_its_reason() {
    let repo = Repo::here().unwrap();
    let render = Render::all(&repo);
    let default = render.iter().find(|render| render.name.ends_with("/default.yaml")).unwrap();
    for (kind, file) in [("ClusterRole", CLUSTER_RULES), ("Role", NAMESPACE_RULES)] {
        let text = repo.text(file).unwrap();
        let rules: Vec<Value> = serde_saphyr::from_str(&rendered(&repo, file)).unwrap();
        let role = default.named(kind, "-federation").unwrap();
        assert_eq!(list(&role["rules"]), rules, "{file}");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("- ")) {
            assert!(
                lines[index - 1].starts_with("# "),
                "{file}:{}: {line} has no reason",
                index + 1
            );
        }
    }
}

#[test]
fn nobody_has_a_right_to_everything_or_to_secrets_of_all_namespaces() {
    for render in Render::all(&Repo::here().unwrap()) {
        for kind in ["ClusterRole", "Role"] {
            for role in render.of_kind(kind) {
                let place = format!("{}: {kind} {}", render.name, name_of(role));
                for (group, resource, _, verb) in rights_of(list(&role["rules"])) {
                    for word in [&group, &resource, &verb] {
                        assert!(!word.contains('*'), "{place}: {resource} {verb}");
                    }
                    let of_secrets = resource.starts_with("secrets");
                    assert!(!of_secrets || kind == "Role", "{place}: {resource} {verb}");
                    for power in ["escalate", "bind", "impersonate", "deletecollection"] {
                        assert_ne!(verb, power, "{place}: {resource}");
                    }
                }
            }
        }
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            for binding in render.of_kind(kind) {
                let subjects: Vec<&str> =
                    list(&binding["subjects"]).iter().filter_map(|s| s["name"].as_str()).collect();
                let [subject] = subjects[..] else { panic!("{kind} {}", name_of(binding)) };
                let known = subject.ends_with("-federation") || subject.ends_with("-test");
                assert!(known, "{}: {kind} for {subject}", render.name);
            }
        }
    }
}

/// The rules of a release with the chart's own name.
fn rendered(repo: &Repo, file: &str) -> String {
    let text = repo.text(file).unwrap_or_else(|| panic!("{file} is not there"));
    text.replace(FULLNAME, "fedgate")
}

fn rights_of(rules: &[Value]) -> BTreeSet<Right> {
    let words = |value: &Value| -> Vec<String> {
        list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules {
        let mut names = words(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        cross(
            &mut rights,
            [
                &words(&rule["apiGroups"]),
                &words(&rule["resources"]),
                &names,
                &words(&rule["verbs"]),
            ],
        );
    }
    rights
}

fn cross(rights: &mut BTreeSet<Right>, [groups, resources, names, verbs]: [&[String]; 4]) {
    for group in groups {
        for resource in resources {
            for name in names {
                for verb in verbs {
                    rights.insert((group.clone(), resource.clone(), name.clone(), verb.clone()));
                }
            }
        }
    }
}

/// The table below a heading that begins so, by the names of its columns.
fn rights_of_table(page: &str, heading: &str) -> BTreeSet<Right> {
    let lines = page.lines().skip_while(|line| !line.starts_with(heading));
    let mut table =
        lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let head = cells(table.next().unwrap_or_else(|| panic!("{PAGE} has no table below {heading}")));
    let mut rights = BTreeSet::new();
    for row in table.skip(1).map(cells) {
        let column = |name: &str| -> Vec<String> {
            let cell = head.iter().position(|known| known == name).and_then(|index| row.get(index));
            let words = cell
                .map_or("", |cell| cell)
                .split(',')
                .map(|word| word.trim().trim_matches(['`', '"']));
            words.map(str::to_owned).collect()
        };
        let (groups, names) = (column("apiGroups"), column("resourceNames"));
        cross(&mut rights, [&groups, &column("resources"), &names, &column("verbs")]);
    }
    rights
}
