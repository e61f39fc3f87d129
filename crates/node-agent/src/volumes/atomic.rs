//! A set of files that changes all at once: the files stand in a directory of their own, a link `..data` points
//! at it, and what users open are links through `..data`. Renaming that one link is the change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner where it is not root.
    pub uid: Option<u32>,
}

/// Relative paths and what stands there.
pub type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes the directory show exactly these files; says whether anything changed.
pub fn write(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    let data = dir.join(DATA);
    let old = std::fs::read_link(&data).ok();
    if let Some(old) = &old
        && is_same(&dir.join(old), files, group)?
    {
        return Ok(false);
    }
    let name = fresh_name(dir);
    let fresh = dir.join(&name);
    std::fs::create_dir(&fresh)?;
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755))?;
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.data)?;
        std::fs::set_permissions(&target, PermissionsExt::from_mode(file.mode))?;
        if file.uid.is_some() {
            std::os::unix::fs::chown(&target, file.uid, None)?;
        }
    }
    let next = dir.join(NEXT);
    let _ = std::fs::remove_file(&next);
    symlink(&name, &next)?;
    std::fs::rename(&next, &data)?;
    link_users(dir, files)?;
    if let Some(old) = old {
        std::fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn fresh_name(dir: &Path) -> String {
    let now = jiff::Timestamp::now();
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S");
    let mut n = now.subsec_nanosecond();
    loop {
        let name = format!("{stamp}.{n}");
        if !dir.join(&name).exists() {
            return name;
        }
        n += 1;
    }
}

fn is_same(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    list(dir, "", &mut present)?;
    if present.len() != files.len() || !files.keys().all(|k| present.contains(k)) {
        return Ok(false);
    }
    for (path, file) in files {
        let target = dir.join(path);
        let meta = std::fs::metadata(&target)?;
        // A group adds bits after the write.
        let mode = meta.mode() & 0o7777;
        let same_mode = if group.is_some() { mode & file.mode == file.mode } else { mode == file.mode };
        if !same_mode || meta.len() != file.data.len() as u64 || std::fs::read(&target)? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(dir: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// The links that users see: one per name at the top.
fn link_users(dir: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |data: &str| File { data: data.as_bytes().to_vec(), mode: 0o644, uid: None };
        list.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn read(dir: &Path, path: &str) -> String {
        std::fs::read_to_string(dir.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn files_are_seen_through_links_and_change_together() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("writes"));
        assert_eq!((read(dir.path(), "a"), read(dir.path(), "sub/b")), ("1".into(), "2".into()));
        let first = std::fs::read_link(dir.path().join(DATA)).expect("a link");
        assert!(!write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("same"));
        assert!(write(dir.path(), &files(&[("a", "3")]), None).expect("changes"));
        assert_eq!(read(dir.path(), "a"), "3");
        assert!(!dir.path().join("sub").exists());
        assert!(!dir.path().join(first).exists());
    }

    #[test]
    fn a_change_of_mode_alone_is_a_change() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut set = files(&[("a", "1")]);
        write(dir.path(), &set, None).expect("writes");
        set.get_mut("a").expect("set").mode = 0o400;
        assert!(write(dir.path(), &set, None).expect("changes"));
        let mode = std::fs::metadata(dir.path().join("a")).expect("there").mode();
        assert_eq!(mode & 0o777, 0o400);
    }
}
