//! What a single golden file cannot show: several files.

use discovery::translate;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
                       spec: {ports: [{port: 80}]}\n";

#[test]
fn one_object_in_two_files_is_served_from_the_first() {
    let second = format!("# a comment\n{}", SERVICE.replace("80", "81"));
    let (resources, diagnostics) = translate(&[("a.yaml", SERVICE), ("b.yaml", &second)]);
    let [model::Resource::Service(service)] = &resources[..] else { panic!("{resources:?}") };
    assert_eq!(service.ports[0].port, 80);
    let [diagnostic] = &diagnostics[..] else { panic!("{diagnostics:?}") };
    assert_eq!(
        diagnostic.to_string(),
        "error FED4004 Service/shop/api: the object at b.yaml:2 is already declared at a.yaml:1, \
         which is in service; remove one of the two"
    );
}

#[test]
fn a_file_that_is_not_yaml_costs_no_other_file() {
    let (resources, diagnostics) = translate(&[("a.yaml", "a: [1"), ("b.yaml", SERVICE)]);
    assert_eq!(resources.len(), 1);
    let [diagnostic] = &diagnostics[..] else { panic!("{diagnostics:?}") };
    assert_eq!(
        diagnostic.to_string(),
        "error FED4010 a.yaml:1: the file cannot be read as YAML: unclosed bracket '['; nothing of \
         it is in service; mend the file"
    );
}

#[test]
fn json_is_yaml() {
    let json = r#"{
	"apiVersion": "v1", "kind": "List", "items": [
		{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
		 "metadata": {"name": "api", "namespace": "shop"}}
	]
}"#;
    let (resources, diagnostics) = translate(&[("a.json", json)]);
    assert_eq!(diagnostics, []);
    assert_eq!(resources[0].key().to_string(), "ServiceExport/shop/api");
}
