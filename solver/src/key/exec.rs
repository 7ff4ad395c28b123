//! What of an exec vertex is in its key: everything that the process may see, but no secret, no address of a host name
//! and no limit.

use super::{InputKey, KeyFields};
use crate::ir::{
    BindMount, CacheMount, Device, ExecOp, FileOwner, Guarded, Host, Mount, MountSource, SecretEnv, Unkeyed,
    VertexId,
};

pub(super) fn fields(exec: &ExecOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let ExecOp {
        root,
        args,
        env,
        unkeyed_env: Unkeyed(_),
        cwd,
        user,
        mounts,
        secret_env,
        network,
        security,
        devices,
        hostname,
        hosts,
        platform,
    } = exec;
    let mut fields = KeyFields::new("exec/2")
        .with_list("args", args)
        .with_list("env", env)
        .with("cwd", cwd)
        .with("user", user)
        .with("network", format!("{network:?}"))
        .with("security", format!("{security:?}"))
        .with("platform", platform.to_string())
        .with_input("root", *root, input);
    for (i, mount) in mounts.iter().enumerate() {
        fields = mount_fields(fields, i, mount, input);
    }
    for SecretEnv { name, id, required } in secret_env {
        let field = |field: &str| format!("secret_env.{name}.{field}");
        fields = fields.with(&field("id"), id).with(&field("required"), required.to_string());
    }
    for Device { name, required } in devices {
        fields = fields.with(&format!("device.{name}"), required.to_string());
    }
    if let Some(hostname) = hostname {
        fields = fields.with("hostname", hostname);
    }
    let names = |Host { name, address: Unkeyed(_) }: &Host| name.clone();
    let hosts: Vec<String> = hosts.iter().map(names).collect();
    if hosts.is_empty() { fields } else { fields.with_list("hosts", &hosts) }
}

fn mount_fields(
    fields: KeyFields,
    i: usize,
    mount: &Mount,
    input: &dyn Fn(VertexId) -> InputKey,
) -> KeyFields {
    let name = |field: &str| format!("mount.{i}.{field}");
    let Mount { target, source, read_only } = mount;
    let fields = fields
        .with(&name("type"), source.kind())
        .with(&name("target"), target)
        .with(&name("read_only"), read_only.to_string());
    match source {
        MountSource::Inline { data, mode } => fields
            .with(&name("data"), blake3::hash(data).to_hex().as_str())
            .with(&name("mode"), format!("{mode:o}")),
        MountSource::Bind(BindMount { from, selector }) => {
            fields.with(&name("selector"), selector).with_input(&name("from"), *from, input)
        }
        MountSource::Cache(CacheMount { id, sharing, from, selector, owner }) => {
            let fields = fields
                .with(&name("id"), id)
                .with(&name("sharing"), format!("{sharing:?}"))
                .with(&name("selector"), selector)
                .with_input(&name("from"), *from, input);
            owner_fields(fields, &name, *owner)
        }
        MountSource::Tmpfs { size } => {
            fields.with(&name("size"), size.map_or_else(|| "default".to_owned(), |size| size.to_string()))
        }
        MountSource::Secret(Guarded { id, required, owner })
        | MountSource::Ssh(Guarded { id, required, owner }) => {
            let fields = fields.with(&name("id"), id).with(&name("required"), required.to_string());
            owner_fields(fields, &name, *owner)
        }
    }
}

fn owner_fields(fields: KeyFields, name: &dyn Fn(&str) -> String, owner: FileOwner) -> KeyFields {
    let FileOwner { mode, uid, gid } = owner;
    let given = [("mode", mode.map(|m| format!("{m:o}"))), ("uid", text(uid)), ("gid", text(gid))];
    let given = given.into_iter().filter_map(|(field, value)| Some((field, value?)));
    given.fold(fields, |fields, (field, value)| fields.with(&name(field), value))
}

fn text(number: Option<u32>) -> Option<String> {
    number.map(|n| n.to_string())
}

#[cfg(test)]
mod tests {
    use boxwright_cache::oci::Platform;
    use boxwright_cache::record::CacheKey;

    use super::super::tests::{assert_each_counts, assert_none_counts, key, vertex};
    use super::*;
    use crate::ir::{NetworkMode, Op, SecurityMode, Sharing};

    fn exec() -> ExecOp {
        let mount = |target: &str, source| Mount { target: target.into(), source, read_only: true };
        let guarded = || Guarded { id: "id".into(), required: false, owner: FileOwner::default() };
        let (selector, from) = ("/".to_owned(), None);
        ExecOp {
            root: None,
            args: vec!["make".into()],
            env: vec!["A=1".into()],
            unkeyed_env: Unkeyed::default(),
            cwd: "/".into(),
            user: String::new(),
            mounts: vec![
                mount("/inline", MountSource::Inline { data: b"x".to_vec(), mode: 0o755 }),
                mount("/bind", MountSource::Bind(BindMount { from, selector: selector.clone() })),
                mount(
                    "/cache",
                    MountSource::Cache(CacheMount {
                        id: "id".into(),
                        sharing: Sharing::Shared,
                        from,
                        selector,
                        owner: FileOwner::default(),
                    }),
                ),
                mount("/tmpfs", MountSource::Tmpfs { size: None }),
                mount("/secret", MountSource::Secret(guarded())),
                mount("/ssh", MountSource::Ssh(guarded())),
            ],
            secret_env: vec![SecretEnv { name: "S".into(), id: "id".into(), required: false }],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            devices: vec![Device { name: "d".into(), required: false }],
            hostname: None,
            hosts: vec![Host { name: "h".into(), address: Unkeyed("10.0.0.1".into()) }],
            platform: Platform::host(),
        }
    }

    fn exec_key(exec: &ExecOp) -> CacheKey {
        key(&Op::Exec(exec.clone()))
    }

    fn inline(exec: &mut ExecOp) -> (&mut Vec<u8>, &mut u32) {
        match &mut exec.mounts[0].source {
            MountSource::Inline { data, mode } => (data, mode),
            other => panic!("{other:?}"),
        }
    }

    fn bind(exec: &mut ExecOp) -> &mut BindMount {
        match &mut exec.mounts[1].source {
            MountSource::Bind(bind) => bind,
            other => panic!("{other:?}"),
        }
    }

    fn cache(exec: &mut ExecOp) -> &mut CacheMount {
        match &mut exec.mounts[2].source {
            MountSource::Cache(cache) => cache,
            other => panic!("{other:?}"),
        }
    }

    fn guarded(exec: &mut ExecOp, at: usize) -> &mut Guarded {
        match &mut exec.mounts[at].source {
            MountSource::Secret(guarded) | MountSource::Ssh(guarded) => guarded,
            other => panic!("{other:?}"),
        }
    }

    const SECRET: usize = 4;
    const SSH: usize = 5;

    #[test]
    fn what_the_process_is_counts() {
        assert_each_counts(
            &exec(),
            exec_key,
            &[
                ("its root", |e| e.root = Some(vertex(0))),
                ("another root", |e| e.root = Some(vertex(1))),
                ("an argument", |e| e.args.push("x".into())),
                ("the border of arguments", |e| e.args = vec!["ma".into(), "ke".into()]),
                ("a variable", |e| e.env.push("B=2".into())),
                ("the order of variables", |e| e.env.insert(0, "B=2".into())),
                ("the directory", |e| e.cwd = "/w".into()),
                ("the user", |e| e.user = "1".into()),
                ("no network", |e| e.network = NetworkMode::None),
                ("the host's network", |e| e.network = NetworkMode::Host),
                ("all rights", |e| e.security = SecurityMode::Insecure),
                ("a device", |e| e.devices[0].name = "e".into()),
                ("that it needs the device", |e| e.devices[0].required = true),
                ("no device", |e| e.devices.clear()),
                ("the machine's name", |e| e.hostname = Some("i".into())),
                ("a host's name", |e| e.hosts[0].name = "i".into()),
                ("no host", |e| e.hosts.clear()),
                ("the system", |e| e.platform.os = "freebsd".into()),
                ("the architecture", |e| e.platform.architecture = "s390x".into()),
                ("the architecture's variant", |e| e.platform.variant = Some("v9".into())),
                ("a secret variable", |e| e.secret_env[0].name = "T".into()),
                ("a secret variable's id", |e| e.secret_env[0].id = "other".into()),
                ("that it needs the secret variable", |e| e.secret_env[0].required = true),
                ("no secret variable", |e| e.secret_env.clear()),
            ],
        );
    }

    #[test]
    fn what_is_mounted_where_counts() {
        assert_each_counts(
            &exec(),
            exec_key,
            &[
                ("the target", |e| e.mounts[1].target = "/other".into()),
                ("that it can be written", |e| e.mounts[1].read_only = false),
                ("the type", |e| e.mounts.swap(SECRET, SSH)),
                ("one less", |e| drop(e.mounts.pop())),
                ("the order", |e| e.mounts.reverse()),
                ("a document's bytes", |e| inline(e).0.push(b'y')),
                ("a document's mode", |e| *inline(e).1 = 0o700),
                ("what is bound", |e| bind(e).from = Some(vertex(0))),
                ("something else that is bound", |e| bind(e).from = Some(vertex(1))),
                ("the part of it", |e| bind(e).selector = "/a".into()),
                ("the size of a tmpfs", |e| e.mounts[3].source = MountSource::Tmpfs { size: Some(1) }),
                ("another size", |e| e.mounts[3].source = MountSource::Tmpfs { size: Some(2) }),
            ],
        );
    }

    #[test]
    fn every_field_of_a_cache_counts() {
        assert_each_counts(
            &exec(),
            exec_key,
            &[
                ("the id", |e| cache(e).id = "other".into()),
                ("who waits", |e| cache(e).sharing = Sharing::Locked),
                ("who has an own one", |e| cache(e).sharing = Sharing::Private),
                ("what is in a new one", |e| cache(e).from = Some(vertex(0))),
                ("something else in a new one", |e| cache(e).from = Some(vertex(1))),
                ("the part of it", |e| cache(e).selector = "/a".into()),
                ("the mode", |e| cache(e).owner.mode = Some(0o700)),
                ("the user", |e| cache(e).owner.uid = Some(0)),
                ("the group", |e| cache(e).owner.gid = Some(0)),
            ],
        );
    }

    #[test]
    fn every_field_of_a_secret_and_of_an_agent_counts() {
        assert_each_counts(
            &exec(),
            exec_key,
            &[
                ("the secret", |e| guarded(e, SECRET).id = "other".into()),
                ("that it is needed", |e| guarded(e, SECRET).required = true),
                ("its mode", |e| guarded(e, SECRET).owner.mode = Some(0o444)),
                ("its user", |e| guarded(e, SECRET).owner.uid = Some(1)),
                ("its group", |e| guarded(e, SECRET).owner.gid = Some(1)),
                ("the agent", |e| guarded(e, SSH).id = "other".into()),
                ("that the agent is needed", |e| guarded(e, SSH).required = true),
                ("the agent's mode", |e| guarded(e, SSH).owner.mode = Some(0o444)),
                ("the agent's user", |e| guarded(e, SSH).owner.uid = Some(1)),
                ("the agent's group", |e| guarded(e, SSH).owner.gid = Some(1)),
            ],
        );
    }

    #[test]
    fn what_must_not_count_does_not() {
        assert_none_counts(
            &exec(),
            exec_key,
            &[
                ("a proxy that nobody declared", |e| e.unkeyed_env.0.push("HTTP_PROXY=x".into())),
                ("where a host is", |e| e.hosts[0].address.0 = "10.0.0.2".into()),
            ],
        );
    }
}
