//! A volume that changes as one of Kubernetes does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Files that are links into `..data`, which is a link to the generation that is there.
pub struct Volume {
    pub path: PathBuf,
    generation: u64,
}

impl Volume {
    /// With these files.
    pub fn new(path: PathBuf, files: &[(&str, &[u8])]) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mut volume = Self { path, generation: 0 };
        volume.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.path.join(name)).unwrap();
        }
        volume
    }

    /// All files at once have this content: the new generation is whole before it is the one that is there, and then the old one goes.
    pub fn swap(&mut self, files: &[(&str, &[u8])]) {
        self.swap_after(files, || {});
    }

    /// The same, with something to do just before it happens.
    pub fn swap_after(&mut self, files: &[(&str, &[u8])], before: impl FnOnce()) {
        let generation = |number: u64| format!("..2026_01_01_00_00_00.{number}");
        let (old, new) = (generation(self.generation), generation(self.generation + 1));
        self.generation += 1;
        fs::create_dir(self.path.join(&new)).unwrap();
        for (name, content) in files {
            fs::write(self.path.join(&new).join(name), content).unwrap();
        }
        symlink(&new, self.path.join("..data_tmp")).unwrap();
        before();
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
        let _ = fs::remove_dir_all(self.path.join(old));
    }
}
