//! Files as vendors write them, and files that are not to be trusted.

use super::*;

fn registry(files: &[(&str, &str)]) -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let directories = ["low", "high"].map(|name| dir.path().join(name));
    directories.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    for (file, text) in files {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    let registry = Registry::load(&directories);
    (dir, registry)
}

fn file(kind: &str, devices: &[&str]) -> String {
    let devices: Vec<String> = devices.iter().map(|name| format!("{{\"name\": {name:?}}}")).collect();
    format!("{{\"cdiVersion\": \"0.6.0\", \"kind\": {kind:?}, \"devices\": [{}]}}", devices.join(", "))
}

fn all() -> Grants {
    Grants { all: true, ..Grants::default() }
}

#[test]
fn devices_are_found_by_name_kind_and_class() {
    let classes = "cdiVersion: 0.6.0\nkind: v.com/gpu\nannotations: {org.mobyproject.buildkit.device.class: all}\n\
                   devices:\n- name: 0\n- name: one\n  annotations:\n    org.mobyproject.buildkit.device.class: some\n";
    let (_dir, found) = registry(&[("low/a.yaml", classes), ("low/b.json", &file("v.com/other", &["x"]))]);
    let select = |wanted: &str| found.select(wanted, &all()).unwrap();
    assert_eq!(select("v.com/gpu=0"), ["v.com/gpu=0"]);
    assert_eq!(select("v.com/gpu"), ["v.com/gpu=0"]);
    assert_eq!(select("v.com/gpu=*"), ["v.com/gpu=0", "v.com/gpu=one"]);
    assert_eq!(select("v.com/gpu=some"), ["v.com/gpu=one"]);
    assert_eq!(select("v.com/gpu=all"), ["v.com/gpu=0"]);
    assert!(select("v.com/gpu=none").is_empty() && select("w.com/gpu").is_empty());
    for wrong in ["gpu", "/gpu=0", "v.com/=0", "../x=0", "v.com/gpu/x=0", "=", ""] {
        assert!(found.select(wrong, &all()).is_err(), "{wrong}");
    }
}

#[test]
fn a_class_that_is_granted_is_what_the_files_say_of_it() {
    let class = |name: &str, class: &str| {
        format!("- name: {name}\n  annotations: {{org.mobyproject.buildkit.device.class: {class}}}\n")
    };
    let text = [
        "cdiVersion: 0.6.0\nkind: v.com/gpu\ndevices:\n",
        &class("0", "small"),
        &class("1", "large"),
        &class("2", "large"),
    ];
    let (_dir, found) = registry(&[("low/a.yaml", &text.concat())]);
    let grants = Grants { all: false, names: BTreeMap::from([("v.com/gpu=large".to_owned(), None)]) };
    assert_eq!(found.select("v.com/gpu=large", &grants).unwrap(), ["v.com/gpu=1", "v.com/gpu=2"]);
    assert_eq!(found.select("v.com/gpu=2", &grants).unwrap(), ["v.com/gpu=2"]);
    assert!(found.select("v.com/gpu=small", &grants).is_err() && found.select("v.com/gpu", &grants).is_err());
}

#[test]
fn what_stands_for_no_device_is_told_by_its_form() {
    for right in ["v.com/gpu", "v.com/gpu=0", "v.com/gpu=*", "v.com/gpu=a class"] {
        assert!(is_selector(right), "{right}");
    }
    for wrong in ["", "*", "gpu", "gpu=0", "/gpu", "v.com/", "v.com/gpu=", "v.com/*", "v.com/a/b=c", "=0"] {
        assert!(!is_selector(wrong), "{wrong}");
    }
}

#[test]
fn only_what_was_granted_is_given() {
    let (_dir, found) = registry(&[("low/a.json", &file("v.com/gpu", &["0", "1"]))]);
    let grant = |name: &str, alias: Option<&str>| Grants {
        all: false,
        names: BTreeMap::from([(name.to_owned(), alias.map(str::to_owned))]),
    };
    let error = found.select("v.com/gpu=0", &Grants::default()).unwrap_err().to_string();
    assert!(error.contains("device v.com/gpu=0 is not allowed: --allow device=v.com/gpu=0"), "{error}");
    assert!(found.select("v.com/gpu=*", &grant("v.com/gpu=0", None)).is_err(), "one of two");
    assert!(found.select("v.com/gpu=0", &grant("v.com/gpu=0", None)).is_ok());
    // What is granted means what it means to who asks.
    assert!(found.select("v.com/gpu=0", &grant("v.com/gpu", None)).is_ok(), "the first of its kind");
    assert!(found.select("v.com/gpu=1", &grant("v.com/gpu", None)).is_err(), "and no other");
    assert!(found.select("v.com/gpu=1", &grant("v.com/gpu=*", None)).is_ok());
    assert!(found.select("v.com/gpu=*", &grant("v.com/gpu=*", None)).is_ok());
    for (instead, given) in
        [("v.com/gpu=1", &["v.com/gpu=1"][..]), ("v.com/gpu=*", &["v.com/gpu=0", "v.com/gpu=1"])]
    {
        let grants = grant("w.com/x=y", Some(instead));
        assert_eq!(found.select("w.com/x=y", &grants).unwrap(), given);
        assert!(found.select(instead, &grants).is_err(), "to nobody who asks for something else");
    }
    // What is not there is for nobody to allow.
    assert!(found.select("v.com/gpu=2", &Grants::default()).unwrap().is_empty());
}

#[test]
fn the_last_directory_counts_and_two_files_of_one_contradict() {
    let one = file("v.com/gpu", &["0"]);
    let (_dir, found) = registry(&[("low/a.json", &one), ("high/b.json", &one)]);
    assert!(found.devices["v.com/gpu=0"].file.ends_with("high/b.json"));
    assert!(found.devices["v.com/gpu=0"].twice.is_none());
    let (_dir, found) = registry(&[("low/a.json", &one), ("low/b.json", &one)]);
    assert!(found.devices["v.com/gpu=0"].twice.as_ref().unwrap().ends_with("low/b.json"));
}

#[test]
fn what_is_not_understood_is_told_and_given_to_nobody() {
    let with = |more: &str| file("v.com/gpu", &["0"]).replacen('{', &format!("{{{more}, "), 1);
    for (name, text, why) in [
        ("a.json", "{".to_owned(), "EOF"),
        ("a.json", with("\"containerEdits\": {\"sysctl\": {}}"), "unknown field `sysctl`"),
        ("a.json", file("v.com/gpu", &["../x"]), "no name of a device"),
        ("a.json", file("../gpu", &["0"]), "no kind of devices"),
        ("a.json", file("v.com/gpu", &["0"]).replace("0.6.0", "2.0.0"), "cdiVersion"),
        ("a.yaml", "a: &a [*a]".to_owned(), "anchors"),
    ] {
        let (_dir, found) = registry(&[(&format!("low/{name}"), &text)]);
        assert!(found.devices.is_empty(), "{text}");
        let told = found.looked_at();
        assert!(told.contains(why) && told.contains(&format!("low/{name} (which")), "{told}");
        assert!(told.contains("high (no .json or .yaml file)"), "{told}");
    }
    let (dir, _) = registry(&[]);
    let fifo = dir.path().join("low/f.json");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0)
        .unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("low/z.yaml")).unwrap();
    let found = Registry::load(&[dir.path().join("low")]);
    assert_eq!(found.files.iter().filter(|(_, fault)| fault.is_some()).count(), 2);
}
