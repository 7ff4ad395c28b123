//! What of an exec vertex is in its key: everything that the process may see, but no secret, no address of a host name
//! and no limit.

use super::{InputKey, KeyFields};
use crate::ir::{ExecOp, FileOwner, Guarded, Mount, MountSource, VertexId};

pub(super) fn fields(exec: &ExecOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let mut fields = KeyFields::new("exec/2")
        .with_list("args", &exec.args)
        .with_list("env", &exec.env)
        .with("cwd", &exec.cwd)
        .with("user", &exec.user)
        .with("network", format!("{:?}", exec.network))
        .with("security", format!("{:?}", exec.security))
        .with("platform", exec.platform.to_string())
        .with_input("root", exec.root, input);
    for (i, mount) in exec.mounts.iter().enumerate() {
        fields = mount_fields(fields, i, mount, input);
    }
    for secret in &exec.secret_env {
        let name = |field: &str| format!("secret_env.{}.{field}", secret.name);
        fields = fields.with(&name("id"), &secret.id).with(&name("required"), secret.required.to_string());
    }
    for device in &exec.devices {
        fields = fields.with(&format!("device.{}", device.name), device.required.to_string());
    }
    if let Some(hostname) = &exec.hostname {
        fields = fields.with("hostname", hostname);
    }
    let hosts: Vec<String> = exec.hosts.iter().map(|host| host.name.clone()).collect();
    if hosts.is_empty() { fields } else { fields.with_list("hosts", &hosts) }
}

fn mount_fields(
    fields: KeyFields,
    i: usize,
    mount: &Mount,
    input: &dyn Fn(VertexId) -> InputKey,
) -> KeyFields {
    let name = |field: &str| format!("mount.{i}.{field}");
    let fields = fields
        .with(&name("type"), mount.source.kind())
        .with(&name("target"), &mount.target)
        .with(&name("read_only"), mount.read_only.to_string());
    match &mount.source {
        MountSource::Inline { data, mode } => fields
            .with(&name("data"), blake3::hash(data).to_hex().as_str())
            .with(&name("mode"), format!("{mode:o}")),
        MountSource::Bind(bind) => {
            fields.with(&name("selector"), &bind.selector).with_input(&name("from"), bind.from, input)
        }
        MountSource::Cache(cache) => {
            let fields = fields
                .with(&name("id"), &cache.id)
                .with(&name("sharing"), format!("{:?}", cache.sharing))
                .with(&name("selector"), &cache.selector)
                .with_input(&name("from"), cache.from, input);
            owner_fields(fields, &name, cache.owner)
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

    use super::super::Purpose;
    use super::*;
    use crate::ir::{
        BindMount, CacheMount, Definition, Device, Host, NetworkMode, SecretEnv, SecurityMode, Sharing,
        Unkeyed,
    };

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

    fn key(exec: &ExecOp) -> CacheKey {
        fields(exec, &|_| InputKey::Contents(None)).key(Purpose::Definition)
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

    type Change = fn(&mut ExecOp);

    #[test]
    fn each_field_makes_another_key() {
        let changes: [(&str, Change); 33] = [
            ("args", |e| e.args.push("x".into())),
            ("env", |e| e.env.push("B=2".into())),
            ("cwd", |e| e.cwd = "/w".into()),
            ("user", |e| e.user = "1".into()),
            ("network none", |e| e.network = NetworkMode::None),
            ("network host", |e| e.network = NetworkMode::Host),
            ("security", |e| e.security = SecurityMode::Insecure),
            ("device", |e| e.devices[0].name = "e".into()),
            ("device required", |e| e.devices[0].required = true),
            ("no device", |e| e.devices.clear()),
            ("hostname", |e| e.hostname = Some("i".into())),
            ("host", |e| e.hosts[0].name = "i".into()),
            ("no host", |e| e.hosts.clear()),
            ("secret variable", |e| e.secret_env[0].name = "T".into()),
            ("secret variable's id", |e| e.secret_env[0].id = "other".into()),
            ("secret variable required", |e| e.secret_env[0].required = true),
            ("target", |e| e.mounts[0].target = "/other".into()),
            ("read-only", |e| e.mounts[1].read_only = false),
            ("no mount", |e| drop(e.mounts.pop())),
            ("order", |e| e.mounts.reverse()),
            ("inline", |e| e.mounts[0].source = MountSource::Inline { data: b"y".to_vec(), mode: 0o755 }),
            ("selector", |e| {
                e.mounts[1].source = MountSource::Bind(BindMount { from: None, selector: "/a".into() });
            }),
            ("cache id", |e| cache(e).id = "other".into()),
            ("sharing", |e| cache(e).sharing = Sharing::Locked),
            ("cache selector", |e| cache(e).selector = "/a".into()),
            ("cache mode", |e| cache(e).owner.mode = Some(0o700)),
            ("cache uid", |e| cache(e).owner.uid = Some(0)),
            ("cache gid", |e| cache(e).owner.gid = Some(0)),
            ("size", |e| e.mounts[3].source = MountSource::Tmpfs { size: Some(1) }),
            ("secret id", |e| guarded(e, 4).id = "other".into()),
            ("secret required", |e| guarded(e, 4).required = true),
            ("secret mode", |e| guarded(e, 4).owner.mode = Some(0o444)),
            ("ssh uid", |e| guarded(e, 5).owner.uid = Some(1)),
        ];
        let mut keys = vec![("nothing", key(&exec()))];
        for (what, change) in changes {
            let mut changed = exec();
            change(&mut changed);
            let new = key(&changed);
            let same = keys.iter().find(|(_, key)| *key == new);
            assert!(same.is_none(), "{what} gives the key of {}", same.unwrap().0);
            keys.push((what, new));
        }
    }

    #[test]
    fn what_a_mount_shows_makes_another_key() {
        let mut definition = Definition::default();
        let local = crate::ir::Op::Source(crate::ir::SourceOp::Local(crate::ir::LocalSource::default()));
        let from = Some(definition.add(local, crate::ir::About::default()));
        let mut one = exec();
        cache(&mut one).from = from;
        one.mounts[1].source = MountSource::Bind(BindMount { from, selector: "/".into() });
        let key = |byte| {
            let key = CacheKey([byte; 32]);
            fields(&one, &|_| InputKey::Definition(key)).key(Purpose::Definition)
        };
        assert_ne!(key(1), key(2));
    }

    #[test]
    fn what_must_not_count_does_not() {
        let before = key(&exec());
        let mut changed = exec();
        changed.unkeyed_env.0.push("HTTP_PROXY=x".into());
        changed.hosts[0].address.0 = "10.0.0.2".into();
        assert_eq!(key(&changed), before);
    }
}
