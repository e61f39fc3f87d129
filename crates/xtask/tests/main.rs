//! The repository holds to its own rules.

use std::process::Command;

use xtask::layers;

#[test]
fn dependencies_point_downward_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo");
    let metadata = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let violations = layers::violations(&metadata).expect("cargo's metadata");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_dependency_that_points_upward_is_named() {
    let metadata = r#"{"packages": [
        {"name": "keelson-host", "dependencies": [{"name": "keelson-daemon", "kind": null, "path": "x"}]},
        {"name": "keelson-dns", "dependencies": [{"name": "keelson-store", "kind": null, "path": "x"}]},
        {"name": "keelson-new", "dependencies": []}]}"#;
    let violations = layers::violations(metadata).expect("valid");
    assert_eq!(violations.len(), 3, "{violations:?}");
}
