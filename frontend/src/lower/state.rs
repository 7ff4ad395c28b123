//! What a stage has become so far, while its instructions are lowered one after another.

use boxwright_cache::oci::{History, ImageConfig, Platform};
use boxwright_solver::ir::VertexId;

use super::paths;
use super::scope::Env;

pub(super) const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// The part that a stage `FROM` this one starts with.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The root file system; none when it is empty.
    pub(super) root: Option<VertexId>,
    /// What instructions see: ENV, and ARG as far as declared.
    pub(super) env: Env,
    /// ENV of the image alone.
    pub(super) image_env: Env,
    /// ARG in order of declaration, with the values that it found; empty where there is none.
    pub(super) args: Env,
    pub(super) dir: String,
    pub(super) platform: Platform,
    /// Its `config.env` is kept in `image_env`.
    pub(super) image: ImageConfig,
    /// The vertices that made layers above the base image.
    pub(super) layers: Vec<VertexId>,
    /// Nobody could look at the base image.
    pub(super) unknown_base: bool,
    /// The base is an image for Windows, whose layers are laid out in another way.
    pub(super) over_windows: bool,
    /// WORKDIR was given in this Dockerfile.
    pub(super) workdir_is_set: bool,
}

impl State {
    /// Above an image, or above nothing.
    pub(super) fn over(root: Option<VertexId>, mut image: ImageConfig, platform: Platform) -> State {
        image.created = None;
        image.config.on_build.clear();
        let mut state = State {
            root,
            env: Env::default(),
            image_env: Env::default(),
            args: Env::default(),
            dir: "/".to_owned(),
            platform,
            layers: Vec::new(),
            unknown_base: false,
            over_windows: false,
            workdir_is_set: false,
            image,
        };
        for entry in std::mem::take(&mut state.image.config.env) {
            state.image_env.set_entry(&entry);
        }
        state
    }

    /// The start of a stage: PATH is always set, and the image's own variables win over inherited arguments.
    pub(super) fn begin_stage(&mut self) {
        self.image.config.on_build.clear();
        if self.image_env.value("PATH").is_none() && !self.is_windows() {
            self.image_env.set_entry(DEFAULT_PATH);
        }
        self.env.set_all(&self.image_env);
        if !self.image.config.working_dir.is_empty() {
            // What an image says wrongly is not this build's to mend.
            let _ = self.set_dir(&self.image.config.working_dir.clone());
        }
    }

    pub(super) fn set_dir(&mut self, path: &str) -> Result<(), String> {
        let dir = paths::workdir(&self.path(&self.image.config.working_dir)?, &self.path(path)?);
        self.dir = crate::ignore::clean_path(&dir);
        self.image.config.working_dir = if self.is_windows() { paths::to_windows(&self.dir) } else { dir };
        Ok(())
    }

    pub(super) fn is_windows(&self) -> bool {
        self.platform.os == "windows"
    }

    /// A path in the image as it is said here.
    pub(super) fn path(&self, path: &str) -> Result<String, String> {
        if self.is_windows() { paths::from_windows(path) } else { Ok(path.to_owned()) }
    }

    /// A history entry of a step that made no layer.
    pub(super) fn note(&mut self, created_by: String) {
        self.history(created_by, true);
    }

    /// A step that made a layer, and its history entry.
    pub(super) fn commit(&mut self, vertex: VertexId, created_by: String) {
        self.root = Some(vertex);
        self.layers.push(vertex);
        self.history(created_by, false);
    }

    fn history(&mut self, created_by: String, empty_layer: bool) {
        let comment = HISTORY_COMMENT.to_owned();
        self.image.history.push(History { created_by, comment, empty_layer, ..History::default() });
    }

    /// The config as it is to be written.
    pub(super) fn finished_image(mut self) -> ImageConfig {
        self.image.config.env = self.image_env.entries();
        self.image
    }
}

/// The config of `scratch`.
pub(super) fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    // Windows knows where its programs are.
    if platform.os == "windows" {
        image.config.working_dir = "\\".to_owned();
    } else {
        image.config.working_dir = "/".to_owned();
        image.config.env = vec![DEFAULT_PATH.to_owned()];
    }
    image
}
