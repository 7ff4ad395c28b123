//! `/etc/resolv.conf` of a container: the host's, with what the command line says instead.

/// What takes the place of the host's lines of the same kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Addresses.
    pub servers: Vec<String>,
    /// A dot is no domain.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// What is left of the host's lines, and its own.
    pub(super) fn apply(&self, host: Vec<u8>) -> Vec<u8> {
        if *self == Resolver::default() {
            return host;
        }
        let host = String::from_utf8_lossy(&host).into_owned();
        let mut text = String::new();
        // In the order in which docker writes them.
        for (keyword, own) in
            [("nameserver", &self.servers), ("search", &self.search), ("options", &self.options)]
        {
            let of_host = |line: &&str| {
                let word = line.split_whitespace().next();
                word == Some(keyword) || (keyword == "search" && word == Some("domain"))
            };
            if own.is_empty() {
                host.lines().filter(of_host).for_each(|line| text.push_str(&format!("{line}\n")));
            } else if keyword == "nameserver" {
                own.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
            } else if *own != ["."] {
                text.push_str(&format!("{keyword} {}\n", own.join(" ")));
            }
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_lines_take_the_place_of_the_hosts() {
        let host = "# made by x\nnameserver 1.1.1.1\nsearch here\noptions edns0\n";
        let file = |servers: &[&str], search: &[&str], options: &[&str]| {
            let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
            let resolver =
                Resolver { servers: words(servers), search: words(search), options: words(options) };
            String::from_utf8(resolver.apply(host.into())).unwrap()
        };
        assert_eq!(file(&[], &[], &[]), host);
        assert_eq!(
            file(&["9.9.9.9", "::1"], &[], &[]),
            "nameserver 9.9.9.9\nnameserver ::1\nsearch here\noptions edns0\n"
        );
        assert_eq!(file(&[], &["."], &["ndots:9"]), "nameserver 1.1.1.1\noptions ndots:9\n");
        assert_eq!(file(&[], &["a", "b"], &[]), "nameserver 1.1.1.1\nsearch a b\noptions edns0\n");
    }
}
