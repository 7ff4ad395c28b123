//! Images and their names: what each stands for, whatever others record, and after a power cut.

use boxwright_cache::oci::Index;
use boxwright_cache::oci::descriptor::OCI_MANIFEST;
use boxwright_cache::record::NewImage;

use super::*;

#[test]
fn what_is_recorded_again_as_it_was_need_not_be_made_durable_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (layers, name) = ([layer(&store, "one")], "some/name".parse::<Reference>().unwrap());
    let put = |layers: &[Layer], id: &Digest, manifest: &Digest| {
        store.put_image((id, b"{}"), (manifest, b"{}"), layers, &[(name.clone(), None)]).unwrap()
    };
    let digests = [b"a", b"b", b"c"].map(|text| Digest::of(text));
    let first = put(&layers, &digests[0], &digests[1]);
    store.sync().unwrap();
    assert_eq!(put(&layers, &digests[0], &digests[1]).created, first.created);
    assert!(!store.needs_sync().unwrap());
    // Other layers, another manifest, and another image of that name are something new.
    put(&[], &digests[0], &digests[1]);
    assert!(store.image(&digests[0]).unwrap().unwrap().layers.is_empty());
    put(&layers, &digests[0], &digests[2]);
    assert_eq!(store.image(&digests[0]).unwrap().unwrap().manifest, digests[2]);
    put(&layers, &digests[2], &digests[1]);
    assert_eq!(store.image_named(&name).unwrap().unwrap().id, digests[2]);
    assert!(store.needs_sync().unwrap());
}

#[test]
fn an_index_that_is_recorded_again_stays_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_in_boot(dir.path(), "boot-1").unwrap();
    let [config, manifest] = [b"a", b"b"].map(|text| Digest::of(text));
    let layers = [layer(&store, "one")];
    let index = serde_json::to_vec(&Index::oci(vec![Descriptor::new(OCI_MANIFEST, manifest, 2)])).unwrap();
    let (digest, name) = (Digest::of(&index), "some/name".parse::<Reference>().unwrap());
    for _ in 0..2 {
        let new = NewImage { config: (&config, b"{}"), manifest: (&manifest, b"{}"), layers: &layers };
        store.put_index((&digest, &index), &[new], &[], &[(name.clone(), None)]).unwrap();
        if store.needs_sync().unwrap() {
            store.sync().unwrap();
        } else {
            // The second time.
            drop((store, layers));
            let store = Store::open_in_boot(dir.path(), "boot-2").unwrap();
            return assert_eq!(store.names(None).unwrap()[0].manifest, digest);
        }
    }
    panic!("what is as it was has to be made durable again");
}

#[test]
fn a_repair_gives_up_bad_documents_so_that_good_ones_can_come() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cancel) = (Store::open(dir.path()).unwrap(), Cancel::new().unwrap());
    let (good, manifest) = (b"{\"os\":\"linux\"}".as_slice(), b"{}".as_slice());
    let put = |config| {
        let (id, digest) = (Digest::of(good), Digest::of(manifest));
        store.put_image((&id, config), (&digest, manifest), &[], &[]).unwrap();
    };
    put(b"{}");
    assert_eq!(store.check(true, &cancel).unwrap().problems.len(), 1);
    put(good);
    assert!(store.check(false, &cancel).unwrap().problems.is_empty());
}

#[test]
fn a_name_that_moved_before_a_power_cut_is_where_it_was_or_where_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open_in_boot(dir.path(), "boot-1").unwrap();
    let [old, whole, torn] = [b"old", b"whl", b"new"].map(|text| Digest::of(text));
    let names = ["moved", "twice", "elsewhere", "removed", "again"].map(|n| n.parse::<Reference>().unwrap());
    let [moved, twice, elsewhere, removed, again] = &names;
    let put = |store: &Store, manifest: &Digest, layers: &[Layer], names: &[&Reference]| {
        let id = Digest::of(manifest.to_string().as_bytes());
        let names: Vec<_> = names.iter().map(|name| ((*name).clone(), None)).collect();
        store.put_image((&id, b"{}"), (manifest, b"{}"), layers, &names).unwrap();
    };
    let durable = [layer(&first, "durable")];
    put(&first, &old, &durable, &[moved, twice, elsewhere, removed, again]);
    put(&first, &whole, &durable, &[]);
    first.sync().unwrap();
    put(&first, &torn, &[layer(&first, "torn")], &[moved, twice, removed, &"new".parse().unwrap()]);
    first.set_name(twice, &whole).unwrap();
    first.set_name(twice, &torn).unwrap();
    first.set_name(elsewhere, &whole).unwrap();
    first.remove_names(&Digest::of(torn.to_string().as_bytes()), &[removed]).unwrap();
    first.set_name(removed, &torn).unwrap();
    drop(first);

    let second = Store::open_in_boot(dir.path(), "boot-2").unwrap();
    let found: Vec<_> =
        second.names(None).unwrap().into_iter().map(|record| (record.name, record.manifest)).collect();
    let expected =
        [(again, old), (elsewhere, whole), (moved, old), (twice, old)].map(|(n, m)| (n.clone(), m));
    assert_eq!(found, expected);
    assert!(!second.needs_sync().unwrap());
    // What is recorded with layers that are new, under a name that is not: it is forgotten with the name.
    put(&second, &old, &[layer(&second, "other")], &[again]);
    drop(second);
    let third = Store::open_in_boot(dir.path(), "boot-3").unwrap();
    assert_eq!(third.names(None).unwrap().len(), 1);
}

#[test]
fn names_of_one_config_keep_the_manifests_that_they_were_given_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let [id, plain, noted, other] = [b"a", b"b", b"c", b"d"].map(|text| Digest::of(text));
    let [one, two] = ["one", "two"].map(|name| name.parse::<Reference>().unwrap());
    let layers = [layer(&store, "x")];
    let put = |manifest: &Digest, names: &[&Reference]| {
        let names: Vec<_> = names.iter().map(|name| ((*name).clone(), None)).collect();
        let document = manifest.to_string();
        store.put_image((&id, b"{}"), (manifest, document.as_bytes()), &layers, &names).unwrap()
    };
    let of = |name: &Reference| store.image_named(name).unwrap().unwrap().manifest;
    let newest = || store.image(&id).unwrap().unwrap().manifest;
    let is_here = |manifest: &Digest| {
        let here = store.document(manifest).unwrap().is_some();
        assert_eq!(store.stored(manifest).unwrap().is_some_and(|s| s.manifest() == manifest), here);
        here
    };
    let first = put(&plain, &[&one]);
    assert_eq!(put(&noted, &[&two]).created, first.created, "the image is no newer");
    assert_eq!((of(&one), of(&two), newest()), (plain, noted, noted));
    assert_eq!(store.image_ids().unwrap(), [id]);
    assert_eq!(store.names(Some(&id)).unwrap().len(), 2);
    store.sync().unwrap();
    // What is recorded last is what the id stands for; nothing else has to be written.
    put(&plain, &[&one]);
    assert!(newest() == plain && !store.needs_sync().unwrap());
    // Of those without a name only the newest stays.
    put(&other, &[]);
    assert!(newest() == other && is_here(&plain) && is_here(&noted));
    put(&noted, &[]);
    assert!(newest() == noted && !is_here(&other));
    // A name takes its manifest along; one that has no name left goes, but not before the move is durable.
    assert!(store.set_name(&one, &noted).unwrap());
    assert!(of(&one) == noted && is_here(&plain));
    store.sync().unwrap();
    assert!(!is_here(&plain) && is_here(&noted));
    put(&plain, &[&one]);
    assert!(!store.remove_names(&id, &[&one]).unwrap(), "it has another name");
    assert!(!is_here(&plain) && newest() == noted);
    assert!(store.remove_names(&id, &[&two]).unwrap());
    assert!(!is_here(&noted) && store.image_ids().unwrap().is_empty());
}

#[test]
fn names_move_and_ids_are_found_by_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = image(&store, &[]);
    let (a, b): (Reference, Reference) = ("a".parse().unwrap(), "b:1".parse().unwrap());
    assert!(store.set_name(&a, &id).unwrap() && store.set_name(&b, &id).unwrap());
    assert!(!store.set_name(&a, &Digest::of(b"absent")).unwrap(), "a name always stands for an image");
    assert_eq!(store.names(Some(&id)).unwrap().len(), 2);
    assert_eq!(store.image_ids_with_prefix(&id.hex()[..12]).unwrap(), [id]);
    assert!(store.image_ids_with_prefix("%").unwrap().is_empty());
    assert!(!store.remove_names(&id, &[&a]).unwrap(), "it has another name");
    assert!(store.image_named(&a).unwrap().is_none());
    assert_eq!(store.image_named(&b).unwrap().unwrap().id, id);
    assert!(store.remove_names(&id, &[&a, &b]).unwrap());
    assert!(store.image(&id).unwrap().is_none() && store.names(None).unwrap().is_empty());
}

/// Two builds whose images are equal, one of which is removed again: the other's stays.
#[test]
fn who_names_an_image_has_it_until_that_name_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config = ImageConfig::default().to_bytes();
    let (id, manifest) = (Digest::of(&config), Digest::of(b"{}"));
    let rounds = |name: &str| {
        let store = Store::open(dir.path()).unwrap();
        let name: Reference = name.parse().unwrap();
        for _ in 0..200 {
            store.put_image((&id, &config), (&manifest, b"{}"), &[], &[(name.clone(), None)]).unwrap();
            assert_eq!(store.image_named(&name).unwrap().expect("it was just named").id, id);
            store.remove_names(&id, &[&name]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| rounds("one"));
        scope.spawn(|| rounds("other"));
    });
    let store = Store::open(dir.path()).unwrap();
    assert!(store.image(&id).unwrap().is_none() && store.names(None).unwrap().is_empty());
}
