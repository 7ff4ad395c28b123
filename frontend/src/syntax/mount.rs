//! `--mount` of RUN. What a line says is known when it is read ([`split`]); what it means, when the variables of its
//! place are ([`read`]). The rules and the words of what is refused are BuildKit's.

use boxwright_solver::Span;

use crate::ast::{MountFlag, Word};
use crate::diagnostic::Diagnostic;
use crate::notation::{parse_bool, quote};
use crate::{csv, size};

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// A mount with its variables expanded. Empty texts are those of options that were not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountType,
    pub from: String,
    pub source: String,
    pub target: String,
    pub id: String,
    pub read_only: bool,
    pub sharing: Option<Sharing>,
    pub required: bool,
    /// Of a tmpfs, in bytes.
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The variable that gets a secret.
    pub env: Option<String>,
}

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];
const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountType {
    pub fn name(self) -> &'static str {
        TYPES[self as usize].0
    }

    /// Whether it may be given a mode and an owner.
    fn has_owner(self) -> bool {
        matches!(self, MountType::Cache | MountType::Secret | MountType::Ssh)
    }

    fn may_be_required(self) -> bool {
        matches!(self, MountType::Secret | MountType::Ssh)
    }
}

impl Mount {
    /// The secret that is meant: by its id, by the source, or by the name of the target.
    pub fn secret_id(&self) -> &str {
        if !self.source.is_empty() {
            &self.source
        } else if !self.id.is_empty() {
            &self.id
        } else {
            base(&self.target)
        }
    }

    /// The agent that is meant.
    pub fn ssh_id(&self) -> &str {
        if self.id.is_empty() { "default" } else { &self.id }
    }
}

/// The last name in a path.
pub(crate) fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Takes the options of a flag apart. Only `from` can't hold variables: it decides which stages are needed.
pub(super) fn split(word: &Word) -> Result<MountFlag> {
    let fail = |message: String| Err(Box::new(Diagnostic::error(message, word.span)));
    let options = match csv::fields(&word.text) {
        Ok(options) => options,
        Err(reason) => return fail(format!("failed to parse csv mounts: {reason}")),
    };
    let mut from = None;
    for (key, value) in options.iter().filter_map(|option| option.split_once('=')) {
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| !matches!(value[at + 1..].chars().next(), None | Some('\n'))) {
            return fail("'from' doesn't support variable expansion, define alias stage instead".to_owned());
        }
        from = Some(value.to_owned()).filter(|from| !from.is_empty());
    }
    Ok(MountFlag { options, from, span: word.span })
}

/// What the options mean.
///
/// # Errors
/// The first option that is wrong, or what can't be said together.
pub(crate) fn read(
    flag: &MountFlag,
    expand: &mut dyn FnMut(&str) -> std::result::Result<String, String>,
) -> Result<Mount> {
    let mut reader = Reader { mount: Mount::default(), read_only: None, span: flag.span };
    for option in &flag.options {
        match option.split_once('=') {
            None => reader.alone(option)?,
            Some((key, value)) => {
                let value = expand(value).map_err(|reason| reader.error(reason))?;
                reader.option(option, &key.to_ascii_lowercase(), &value)?;
            }
        }
    }
    reader.finish()
}

struct Reader {
    mount: Mount,
    /// None while nothing was said about it.
    read_only: Option<bool>,
    span: Span,
}

impl Reader {
    fn error(&self, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(message, self.span))
    }

    /// An option without a value.
    fn alone(&mut self, option: &str) -> Result<()> {
        let key = option.to_ascii_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => {
                self.check_type("required", self.mount.kind.may_be_required())?;
                self.mount.required = true;
            }
            _ => return Err(self.error(format!("invalid field '{option}' must be a key=value pair"))),
        }
        Ok(())
    }

    fn option(&mut self, option: &str, key: &str, value: &str) -> Result<()> {
        match key {
            "type" => self.mount.kind = self.one_of(&TYPES, "mount type", value)?,
            "from" => value.clone_into(&mut self.mount.from),
            "source" | "src" => value.clone_into(&mut self.mount.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.mount.target),
            "id" => value.clone_into(&mut self.mount.id),
            "env" => self.mount.env = Some(value.to_owned()),
            "readonly" | "ro" => self.read_only = Some(self.bool(key, value)?),
            "readwrite" | "rw" => self.read_only = Some(!self.bool(key, value)?),
            "required" => {
                self.check_type(key, self.mount.kind.may_be_required())?;
                self.mount.required = self.bool(key, value)?;
            }
            "size" => {
                self.check_type(key, self.mount.kind == MountType::Tmpfs)?;
                let size = size::parse(value).ok_or_else(|| self.invalid(key, value))?;
                self.mount.size = Some(size);
            }
            "sharing" => self.mount.sharing = Some(self.one_of(&SHARING, "sharing value", value)?),
            "mode" => self.mount.mode = Some(self.number(key, value, 8)?),
            "uid" => self.mount.uid = Some(self.owner(key, value)?),
            "gid" => self.mount.gid = Some(self.owner(key, value)?),
            _ => {
                let unknown = self.error(format!("unexpected key '{key}' in '{option}'"));
                return Err(Box::new(unknown.did_you_mean(key, KEYS)));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Mount> {
        let mount = &self.mount;
        let kind = mount.kind;
        if !kind.has_owner() {
            let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
            if let Some((name, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return Err(self.error(format!("{name} not allowed for {} type mounts", quote(kind.name()))));
            }
        }
        if kind == MountType::Secret {
            let nothing = mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty();
            let twice = !mount.source.is_empty() && !mount.id.is_empty();
            for (wrong, message) in [
                (!mount.from.is_empty(), "secret mount should not have a from"),
                (mount.sharing.is_some(), "secret mount should not define sharing"),
                (nothing, "invalid secret mount. one of source, target required"),
                (twice, "both source and id can't be set"),
            ] {
                if wrong {
                    return Err(self.error(message));
                }
            }
        }
        if mount.sharing.is_some() && kind != MountType::Cache {
            return Err(self.error(format!("invalid cache sharing set for {} mount", kind.name())));
        }
        let written = matches!(kind, MountType::Cache | MountType::Tmpfs);
        self.mount.read_only = self.read_only.unwrap_or(!written);
        Ok(self.mount)
    }

    fn check_type(&self, key: &str, allowed: bool) -> Result<()> {
        if allowed {
            return Ok(());
        }
        let kind = self.mount.kind.name();
        let wrong = self.error(format!("unexpected key '{key}' for mount type '{kind}'"));
        // The options are read in their order, as BuildKit reads them.
        let late = self.mount.kind == MountType::Bind;
        Err(if late {
            Box::new(wrong.hint("the type comes before the options that only it has"))
        } else {
            wrong
        })
    }

    fn one_of<T: Copy>(&self, known: &[(&str, T)], what: &str, value: &str) -> Result<T> {
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let wrong = self.error(format!("unsupported {what} {}", quote(value)));
            Box::new(wrong.did_you_mean(value, known.iter().map(|(name, _)| *name)))
        })
    }

    fn bool(&self, key: &str, value: &str) -> Result<bool> {
        parse_bool(value).ok_or_else(|| self.invalid(key, value))
    }

    fn invalid(&self, key: &str, value: &str) -> Box<Diagnostic> {
        self.error(format!("invalid value for {key}: {value}"))
    }

    /// The last number means nobody: the kernel takes it for no change.
    fn owner(&self, key: &str, value: &str) -> Result<u32> {
        let id = self.number(key, value, 10)?;
        if id == u32::MAX {
            return Err(
                self.error(format!("invalid value {value} for {key}: the largest is {}", u32::MAX - 1))
            );
        }
        Ok(id)
    }

    fn number(&self, key: &str, value: &str, radix: u32) -> Result<u32> {
        let parsed = u32::from_str_radix(value, radix).ok().filter(|_| !value.starts_with('+'));
        parsed.ok_or_else(|| self.error(format!("invalid value {value} for {key}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(text: &str) -> Result<MountFlag> {
        split(&Word { text: text.to_owned(), span: Span::default() })
    }

    fn mount(text: &str) -> Result<Mount> {
        read(&flag(text)?, &mut |word| Ok(word.replace("$x", "/expanded")))
    }

    #[test]
    fn options_have_aliases_and_defaults() {
        let bind = Mount { target: "/x".into(), read_only: true, ..Mount::default() };
        for text in ["target=/x", "type=bind,dst=/x", "TYPE=Bind,destination=/x,ro", "target=/x,rw=false"] {
            assert_eq!(mount(text).unwrap(), bind, "{text}");
        }
        let written = mount("target=/x,readwrite,source=a,from=b").unwrap();
        assert_eq!((written.read_only, written.source.as_str(), written.from.as_str()), (false, "a", "b"));
        let cache = mount("type=cache,id=$x,target=/c,sharing=LOCKED,mode=0750,uid=1,gid=2").unwrap();
        assert_eq!((cache.kind, cache.id.as_str(), cache.read_only), (MountType::Cache, "/expanded", false));
        assert_eq!((cache.sharing, cache.mode, cache.uid), (Some(Sharing::Locked), Some(0o750), Some(1)));
        assert_eq!(mount("type=tmpfs,target=/t,size=1m").unwrap().size, Some(1 << 20));
        assert_eq!(mount("type=secret,target=/run/a.b").unwrap().secret_id(), "a.b");
        assert!(mount("type=ssh,required").unwrap().required);
    }

    #[test]
    fn what_is_refused_is_refused_in_buildkits_words() {
        for (text, expected) in [
            ("type=bogus,target=/x", "unsupported mount type \"bogus\""),
            ("type=cach", "unsupported mount type \"cach\" (did you mean cache?)"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("typ=bind", "unexpected key 'typ' in 'typ=bind' (did you mean type?)"),
            ("target=/x,readonly=maybe", "invalid value for readonly: maybe"),
            ("type=cache,sharing=shred", "unsupported sharing value \"shred\" (did you mean shared?)"),
            ("target=/x,mode=0755", "mode not allowed for \"bind\" type mounts"),
            ("type=tmpfs,gid=1", "gid not allowed for \"tmpfs\" type mounts"),
            ("type=cache,target=/c,size=1m", "unexpected key 'size' for mount type 'cache'"),
            ("type=cache,required", "unexpected key 'required' for mount type 'cache'"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=+1", "invalid value +1 for uid"),
            ("type=cache,uid=4294967295", "invalid value 4294967295 for uid: the largest is 4294967294"),
            ("type=tmpfs,size=big", "invalid value for size: big"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=locked", "secret mount should not define sharing"),
            ("type=ssh,sharing=locked", "invalid cache sharing set for ssh mount"),
            ("target=/x,from=$y", "'from' doesn't support variable expansion, define alias stage instead"),
        ] {
            assert_eq!(mount(text).unwrap_err().to_string(), expected, "{text}");
        }
        let early = mount("size=1m,type=tmpfs,target=/t").unwrap_err();
        assert!(early.message.starts_with("unexpected key 'size' for mount type 'bind'"), "{early}");
        assert!(flag("a\"b").unwrap_err().message.starts_with("failed to parse csv mounts: "));
    }

    #[test]
    fn only_from_is_looked_at_before_variables_are_known() {
        assert_eq!(flag("type=$t,from=Base").unwrap().from.as_deref(), Some("Base"));
        assert_eq!(flag("from=a$").unwrap().from.as_deref(), Some("a$"));
        assert!(flag("type=nonsense,size=1,x").is_ok());
    }
}
