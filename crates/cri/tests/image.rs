use keelson_cri::image::{ImageConfig, build};
use std::fs;

#[test]
fn the_same_directory_gives_the_same_image() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let rootfs = dir.path().join("rootfs");
    fs::create_dir_all(rootfs.join("bin")).expect("creates");
    fs::write(rootfs.join("bin/hello"), "#!/bin/sh\n").expect("writes");
    std::os::unix::fs::symlink("hello", rootfs.join("bin/hi")).expect("links");
    let config = ImageConfig { name: "demo:v1".into(), cmd: vec!["/bin/hello".into()], ..Default::default() };
    let first = build(&rootfs, &config, &dir.path().join("a.tar")).expect("builds");
    let second = build(&rootfs, &config, &dir.path().join("b.tar")).expect("builds");
    assert_eq!(first, second);
    assert_eq!(
        fs::read(dir.path().join("a.tar")).expect("there"),
        fs::read(dir.path().join("b.tar")).expect("there")
    );
}
