//! `helm/fedgate-crds/templates/`: the custom resource definitions, from the types in `api/src/kinds/`.

use super::Page;

/// One file for each definition, in their order.
const FILES: [&str; 5] = [
    "helm/fedgate-crds/templates/federations.yaml",
    "helm/fedgate-crds/templates/clusterpeers.yaml",
    "helm/fedgate-crds/templates/joingrants.yaml",
    "helm/fedgate-crds/templates/namespacegrants.yaml",
    "helm/fedgate-crds/templates/accesspolicies.yaml",
];

/// One template for each definition. The switches work in a chart without such values, too.
pub fn pages() -> Vec<Page> {
    let definitions = api::crd::all();
    let page = |(path, definition)| Page { path, text: template(definition) };
    FILES.into_iter().zip(&definitions).map(page).collect()
}

fn template(definition: &serde_json::Value) -> String {
    let yaml = api::crd::to_yaml(definition);
    let keep = "metadata:\n\
                {{- if dig \"crds\" \"keep\" true .Values.AsMap }}\n  \
                  annotations:\n    helm.sh/resource-policy: keep\n\
                {{- end }}\n";
    format!(
        "{{{{- /* Generated from `api/src/kinds/`. Edit the source, then run `make docs`. */}}}}\n\
         {{{{- if dig \"crds\" \"enabled\" true .Values.AsMap }}}}\n{}{{{{- end }}}}\n",
        yaml.replacen("metadata:\n", keep, 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_definition_between_switches() {
        let pages = pages();
        assert_eq!(pages.len(), api::crd::all().len());
        for page in pages {
            let lines: Vec<_> = page.text.lines().collect();
            assert!(lines[1].starts_with("{{- if") && lines[lines.len() - 1] == "{{- end }}");
            let plain: Vec<_> = lines.into_iter().filter(|line| !line.starts_with("{{")).collect();
            let definition: serde_json::Value = serde_saphyr::from_str(&plain.join("\n")).unwrap();
            let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
            assert!(page.path.ends_with(&format!("/{plural}.yaml")), "{}: {plural}", page.path);
            let annotations = &definition["metadata"]["annotations"];
            assert_eq!(annotations["helm.sh/resource-policy"], "keep");
        }
    }
}
