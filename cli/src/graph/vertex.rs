//! What a vertex is, as an object.

use boxwright_solver::VertexId;
use boxwright_solver::ir::{
    CopyAction, ExecOp, FileAction, FileOwner, Mount, MountSource, NetworkMode, Op, SecurityMode, Sharing,
    SourceOp, Vertex,
};
use serde_json::{Map, Value, json};

use super::object as fields;

type Fields = Map<String, Value>;

pub(super) fn object(id: VertexId, vertex: &Vertex) -> Value {
    let inputs: Vec<usize> = vertex.op.inputs().into_iter().map(VertexId::index).collect();
    let lines = vertex.about.span.map(|span| json!([span.first_line, span.last_line]));
    let mut all = fields([
        ("id", json!(id.index())),
        ("name", json!(vertex.about.name)),
        ("inputs", json!(inputs)),
        ("lines", json!(lines)),
        ("no_cache", json!(vertex.about.no_cache)),
    ]);
    all.extend(match &vertex.op {
        Op::Source(source) => of_source(source),
        Op::Exec(exec) => of_exec(exec),
        Op::File(file) => fields([
            ("kind", json!("file")),
            ("base", json!(index(file.base))),
            ("actions", file.actions.iter().map(action).collect()),
        ]),
        Op::Merge(merge) => fields([
            ("kind", json!("merge")),
            ("base", json!(merge.base.index())),
            ("upper", json!(merge.upper.index())),
        ]),
    });
    Value::Object(all)
}

fn index(id: Option<VertexId>) -> Option<usize> {
    id.map(VertexId::index)
}

fn of_source(source: &SourceOp) -> Fields {
    match source {
        SourceOp::Image(image) => fields([
            ("kind", json!("image")),
            ("image", json!(image.name)),
            ("manifest", json!(image.manifest.to_string())),
            ("platform", json!(image.platform.to_string())),
        ]),
        SourceOp::Local(local) => fields([
            ("kind", json!("local")),
            ("context", json!(local.name)),
            ("select", json!(local.select)),
            ("below", json!(local.below)),
            ("exclude", json!(local.exclude)),
        ]),
        SourceOp::Http(http) => fields([
            ("kind", json!("http")),
            ("url", json!(http.url)),
            ("file", json!(http.name)),
            ("checksum", json!(http.checksum.as_ref().map(ToString::to_string))),
        ]),
        SourceOp::Git(git) => fields([
            ("kind", json!("git")),
            ("remote", json!(git.remote)),
            ("reference", json!(git.reference)),
            ("checksum", json!(git.checksum)),
            ("subdir", json!(git.subdir)),
            ("keep_git_dir", json!(git.keep_git_dir)),
            ("submodules", json!(git.submodules)),
        ]),
    }
}

fn of_exec(exec: &ExecOp) -> Fields {
    let network = match exec.network {
        NetworkMode::Default => "",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    };
    let insecure = exec.security == SecurityMode::Insecure;
    // What they hold is of the machine, and may be a password.
    let unkeyed = exec.unkeyed_env.0.iter().map(|entry| entry.split('=').next().unwrap_or_default());
    let secret = |secret: &boxwright_solver::ir::SecretEnv| {
        let required = json!(secret.required);
        Value::Object(fields([
            ("name", json!(secret.name)),
            ("id", json!(secret.id)),
            ("required", required),
        ]))
    };
    let device = |device: &boxwright_solver::ir::Device| {
        Value::Object(fields([("name", json!(device.name)), ("required", json!(device.required))]))
    };
    fields([
        ("kind", json!("exec")),
        ("root", json!(index(exec.root))),
        ("args", json!(exec.args)),
        ("env", json!(exec.env)),
        ("machine_env", unkeyed.collect()),
        ("cwd", json!(exec.cwd)),
        ("user", json!(exec.user)),
        ("mounts", exec.mounts.iter().map(mount).collect()),
        ("secret_env", exec.secret_env.iter().map(secret).collect()),
        ("network", json!(network)),
        ("security", json!(if insecure { "insecure" } else { "" })),
        ("devices", exec.devices.iter().map(device).collect()),
        ("hostname", json!(exec.hostname.as_deref().unwrap_or_default())),
        ("hosts", exec.hosts.iter().map(|host| host.name.as_str()).collect()),
        ("platform", json!(exec.platform.to_string())),
    ])
}

fn mount(mount: &Mount) -> Value {
    let mut all = fields([
        ("type", json!(mount.source.kind())),
        ("target", json!(mount.target)),
        ("read_only", json!(mount.read_only)),
    ]);
    all.extend(match &mount.source {
        MountSource::Inline { data, mode } => {
            fields([("size", json!(data.len())), ("mode", json!(format!("{mode:o}")))])
        }
        MountSource::Bind(bind) => {
            fields([("from", json!(index(bind.from))), ("selector", json!(bind.selector))])
        }
        MountSource::Cache(cache) => {
            let sharing = match cache.sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            };
            let mut all = fields([
                ("id", json!(cache.id)),
                ("sharing", json!(sharing)),
                ("from", json!(index(cache.from))),
                ("selector", json!(cache.selector)),
            ]);
            all.extend(owner(cache.owner));
            all
        }
        MountSource::Tmpfs { size } => fields([("size", json!(size))]),
        MountSource::Secret(guarded) | MountSource::Ssh(guarded) => {
            let mut all = fields([("id", json!(guarded.id)), ("required", json!(guarded.required))]);
            all.extend(owner(guarded.owner));
            all
        }
    });
    Value::Object(all)
}

fn owner(owner: FileOwner) -> Fields {
    let mode = owner.mode.map(|mode| format!("{mode:o}"));
    fields([("mode", json!(mode)), ("uid", json!(owner.uid)), ("gid", json!(owner.gid))])
}

fn action(action: &FileAction) -> Value {
    Value::Object(match action {
        FileAction::Copy(copy) => of_copy(copy),
        FileAction::Mkdir(dir) => fields([
            ("action", json!("mkdir")),
            ("dest", json!(dir.path)),
            ("mode", json!(format!("{:o}", dir.mode))),
            ("owner", json!(dir.owner.as_ref().map(|owner| &owner.0))),
        ]),
        FileAction::Mkfile(file) => fields([
            ("action", json!("mkfile")),
            ("name", json!(file.name)),
            ("dest", json!(file.dest)),
            ("size", json!(file.data.len())),
            ("mode", json!(file.mode.as_ref().map(ToString::to_string))),
            ("owner", json!(file.owner.as_ref().map(|owner| &owner.0))),
        ]),
    })
}

fn of_copy(copy: &CopyAction) -> Fields {
    fields([
        ("action", json!("copy")),
        ("from", json!(index(copy.from))),
        ("sources", json!(copy.sources)),
        ("dest", json!(copy.dest)),
        ("mode", json!(copy.mode.as_ref().map(ToString::to_string))),
        ("owner", json!(copy.owner.as_ref().map(|owner| &owner.0))),
        ("below", json!(copy.below)),
        ("exclude", json!(copy.exclude)),
        ("unpack", json!(copy.unpack)),
    ])
}
