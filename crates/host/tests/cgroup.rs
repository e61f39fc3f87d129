use keelson_host::cgroup::{Cgroups, Limits, V1, V2};
use std::fs;
use std::path::Path;

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[test]
fn v1_writes_each_limit_into_its_hierarchy() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let hierarchy = |name: &str| (dir.path().join(name), vec![name.to_owned()]);
    let groups = V1::new(["cpu", "memory", "pids"].map(hierarchy));
    let limits =
        Limits { cpu_shares: Some(512), cpu_quota_us: Some(50_000), memory_bytes: Some(-1), pids: Some(-1) };
    groups.ensure("/kubepods/burstable/pod1", &limits).expect("ensure");
    let pod = |c: &str| dir.path().join(c).join("kubepods/burstable/pod1");
    assert_eq!(read(&pod("cpu"), "cpu.shares"), "512");
    assert_eq!(read(&pod("cpu"), "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&pod("memory"), "memory.limit_in_bytes"), "-1");
    assert_eq!(read(&pod("pids"), "pids.max"), "max");
    assert_eq!(groups.children("/kubepods").expect("list"), ["burstable"]);
}

#[test]
fn v1_reads_usage_from_the_accounting_files() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (file, text) in [
        ("cpuacct/p/cpuacct.usage", "123456\n"),
        ("memory/p/memory.usage_in_bytes", "1000\n"),
        ("memory/p/memory.stat", "cache 1\ntotal_inactive_file 300\ntotal_rss 600\ntotal_pgfault 7\n"),
        ("pids/p/pids.current", "3\n"),
    ] {
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().expect("has one")).expect("create");
        fs::write(file, text).expect("write");
    }
    let hierarchy = |name: &str| (dir.path().join(name), vec![name.to_owned()]);
    let usage = V1::new(["cpuacct", "memory", "pids"].map(hierarchy)).usage("/p").expect("usage");
    assert_eq!((usage.cpu_nanos, usage.working_set_bytes, usage.rss_bytes), (123_456, 700, 600));
    assert_eq!((usage.page_faults, usage.processes), (7, 3));
}

#[test]
fn v2_delegates_controllers_and_converts_limits() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for sub in ["", "kubepods", "kubepods/pod1"] {
        fs::create_dir_all(dir.path().join(sub)).expect("create");
        fs::write(dir.path().join(sub).join("cgroup.controllers"), "cpu memory pids\n").expect("write");
    }
    let groups = V2::new(dir.path());
    let limits =
        Limits { cpu_shares: Some(1024), cpu_quota_us: Some(-1), memory_bytes: Some(4096), pids: Some(100) };
    groups.ensure("/kubepods/pod1", &limits).expect("ensure");
    let pod = dir.path().join("kubepods/pod1");
    assert_eq!(read(&pod, "cpu.weight"), "39");
    assert_eq!(read(&pod, "cpu.max"), "max 100000");
    assert_eq!(read(&pod, "memory.max"), "4096");
    assert_eq!(read(&pod, "pids.max"), "100");
    assert!(read(dir.path(), "cgroup.subtree_control").starts_with('+'));
}
