//! Who may depend on whom. The same rules stand in `deny.toml`; a test keeps the two in step.

/// A crate of the workspace and the other crates of ours that it may use.
#[derive(Clone, Copy, Debug)]
pub struct CrateRule {
    pub name: &'static str,
    /// In `[dependencies]` and `[build-dependencies]`.
    pub uses: &'static [&'static str],
    /// In `[dev-dependencies]`, besides `uses`.
    pub tests_use: &'static [&'static str],
}

/// From the bottom up: a crate uses only crates that stand above it in this table.
pub const CRATES: &[CrateRule] = &[
    CrateRule { name: "model", uses: &[], tests_use: &[] },
    CrateRule { name: "wire", uses: &["model"], tests_use: &[] },
    CrateRule { name: "api", uses: &["model", "wire"], tests_use: &[] },
    CrateRule { name: "identity", uses: &["model"], tests_use: &[] },
    CrateRule { name: "wan", uses: &[], tests_use: &[] },
    CrateRule { name: "tunnel", uses: &["model", "wire", "identity"], tests_use: &["wan"] },
    CrateRule { name: "discovery", uses: &["model", "wire", "api"], tests_use: &[] },
    CrateRule { name: "daemon", uses: &[], tests_use: &[] },
    CrateRule {
        name: "gateway",
        uses: &["model", "wire", "identity", "tunnel", "daemon"],
        tests_use: &["wan", "testkit"],
    },
    CrateRule {
        name: "federation",
        uses: &["model", "wire", "api", "identity", "tunnel", "discovery", "daemon"],
        tests_use: &["gateway", "wan", "testkit"],
    },
    CrateRule {
        name: "fedctl",
        uses: &[
            "model",
            "wire",
            "api",
            "identity",
            "wan",
            "tunnel",
            "discovery",
            "daemon",
            "gateway",
            "federation",
        ],
        tests_use: &["testkit"],
    },
    CrateRule {
        name: "testkit",
        uses: &[
            "model",
            "wire",
            "api",
            "identity",
            "wan",
            "tunnel",
            "discovery",
            "daemon",
            "gateway",
            "federation",
            "fedctl",
        ],
        tests_use: &[],
    },
    CrateRule {
        name: "bench",
        uses: &["model", "wire", "identity", "gateway", "federation", "fedctl", "testkit", "wan"],
        tests_use: &[],
    },
    CrateRule { name: "kind-e2e", uses: &["model", "wire", "api"], tests_use: &[] },
    CrateRule {
        name: "xtask",
        uses: &["model", "api"],
        tests_use: &["gateway", "federation", "fedctl"],
    },
];

/// A package that only some others may depend on directly.
#[derive(Clone, Copy, Debug)]
pub struct Wrapper {
    pub package: &'static str,
    /// Crates of ours.
    pub ours: &'static [&'static str],
    /// Other people's packages through which it comes in.
    pub others: &'static [&'static str],
    pub reason: &'static str,
}

impl Wrapper {
    /// The rule as a line of `deny.toml`.
    pub fn deny_line(&self) -> String {
        let wrappers = self.ours.iter().chain(self.others).map(|name| format!("\"{name}\""));
        let wrappers = wrappers.collect::<Vec<_>>().join(", ");
        let Self { package, reason, .. } = self;
        format!("{{ crate = \"{package}\", wrappers = [{wrappers}], reason = \"{reason}\" }},")
    }
}

/// Packages with a home.
pub const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        package: "quinn",
        ours: &["tunnel"],
        others: &["h3-quinn"],
        reason: "all UDP passes the tunnel's one socket wrapper",
    },
    Wrapper {
        package: "h3-quinn",
        ours: &["gateway"],
        others: &[],
        reason: "HTTP/3 is for the edge, the tunnel has frames of its own",
    },
    Wrapper {
        package: "rustls",
        ours: &["identity", "tunnel"],
        others: &[
            "quinn",
            "quinn-proto",
            "tokio-rustls",
            "hyper-rustls",
            "kube-client",
            "rustls-platform-verifier",
        ],
        reason: "one verifier decides who a peer is",
    },
    Wrapper {
        package: "rcgen",
        ours: &["identity", "testkit"],
        others: &[],
        reason: "certificates are made in one place",
    },
    Wrapper {
        package: "x509-parser",
        ours: &["wire", "identity"],
        others: &["rcgen"],
        reason: "certificates are read with bundles and with peers",
    },
    Wrapper {
        package: "hyper",
        ours: &["gateway", "fedctl", "testkit", "bench"],
        others: &["axum", "hyper-rustls", "hyper-timeout", "hyper-util", "kube-client", "tonic"],
        reason: "HTTP is spoken by the data plane and by load generators",
    },
    Wrapper {
        package: "tonic",
        ours: &["wire", "gateway", "federation", "fedctl", "bench"],
        others: &["tonic-prost"],
        reason: "services are declared in wire and served or called by processes and load generators",
    },
    Wrapper {
        package: "prost",
        ours: &["wire", "gateway", "federation", "bench"],
        others: &["prost-build", "prost-reflect", "prost-types", "protox", "tonic-prost"],
        reason: "messages are declared in wire",
    },
    Wrapper {
        package: "axum",
        ours: &["gateway", "federation"],
        others: &["tonic"],
        reason: "for admin endpoints only",
    },
    Wrapper {
        package: "prometheus",
        ours: &["gateway", "federation"],
        others: &[],
        reason: "metrics are hidden behind a module of each process",
    },
    Wrapper {
        package: "notify",
        ours: &["discovery"],
        others: &[],
        reason: "folders are watched by the file provider",
    },
    Wrapper {
        package: "tun-rs",
        ours: &["wan"],
        others: &[],
        reason: "only the emulated WAN opens a TUN device",
    },
    Wrapper {
        package: "kube",
        ours: &["api", "discovery", "federation", "fedctl", "kind-e2e"],
        others: &[],
        reason: "the data plane never needs Kubernetes",
    },
    Wrapper {
        package: "k8s-openapi",
        ours: &["api", "discovery", "federation", "fedctl", "kind-e2e"],
        others: &["kube", "kube-client", "kube-core", "kube-runtime"],
        reason: "the data plane never needs Kubernetes",
    },
    Wrapper {
        package: "openraft",
        ours: &["federation"],
        others: &[],
        reason: "consensus stays behind the store",
    },
    Wrapper {
        package: "rocksdb",
        ours: &["federation"],
        others: &[],
        reason: "slow to build, so only the store links it",
    },
    Wrapper {
        package: "ed25519-dalek",
        ours: &["identity", "federation"],
        others: &[],
        reason: "only what every node must judge alike is signed with it",
    },
];

/// Packages that nothing may pull in, and why.
pub const BANNED: &[(&str, &str)] = &[
    ("ring", "one crypto library: aws-lc-rs"),
    ("openssl", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("reqwest", "HTTP is hyper"),
    ("serde_yaml", "no longer maintained; YAML is serde-saphyr"),
];

/// Packages of which several versions are tolerated, and why.
pub const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "pem and serde-saphyr are on 0.23, tonic and our own code on 0.22"),
    ("cpufeatures", "sha2 is on 0.2, chacha20 on 0.3"),
    ("derive_more", "openraft is on 1"),
    ("derive_more-impl", "comes with derive_more"),
    ("foldhash", "comes with hashbrown"),
    ("getrandom", "comes with rand"),
    ("granit-parser", "comes with serde-saphyr"),
    ("hashbrown", "petgraph, below protox, is behind indexmap"),
    ("itertools", "bindgen, below rocksdb, is on 0.13"),
    ("linux-raw-sys", "comes with rustix"),
    ("pem", "kube-client is on 3, rcgen on 4"),
    ("rand", "quinn and proptest are on 0.10, our own code on 0.9, openraft on 0.8"),
    ("rand_chacha", "comes with rand"),
    ("rand_core", "comes with rand"),
    ("rustix", "procfs, below prometheus, is on 0.38"),
    ("serde-saphyr", "kube-client is on 0.0"),
    ("shlex", "bindgen, below rocksdb, is on 1"),
    ("syn", "derive macros are moving from 2 to 3"),
    ("thiserror", "openraft is on 1"),
    ("thiserror-impl", "comes with thiserror"),
    ("unicode-width", "miette, below protox, is behind"),
    ("untrusted", "aws-lc-rs and rustls-webpki"),
];

/// Licences under which a dependency may come.
pub const LICENSES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
