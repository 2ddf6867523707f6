//! The directory of a store: who may use it, what is refused, backups and their return.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{HandClock, all, open, set, set_for, wait};
use kv_rpc::store::{self, Limits, OpenError, Operation, Store, Ttl};
use portyard_wire::value::Value;
use redb::{Database, ReadableTable, Table, TableDefinition};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

type Records<'a> = Table<'a, u64, &'static [u8]>;

fn refusal(directory: &Path) -> OpenError {
    let clock = Arc::new(HandClock::new());
    Store::open(directory, Limits::default(), clock)
        .err()
        .unwrap()
}

fn fill(store: &Store, count: i64) {
    for number in 0..count {
        wait(store.apply(set(number, number).into())).unwrap();
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Changes records behind the store's back.
fn change_records(data: &Path, change: &dyn Fn(&mut Records<'_>)) {
    let database = Database::open(data).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(RECORDS).unwrap());
    transaction.commit().unwrap();
}

#[test]
fn what_is_made_is_for_its_owner_alone() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("data");
    let store = open(&directory);
    fill(&store, 1);
    drop(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["data.redb", "lock"]);

    chmod(&directory, 0o770);
    let refused = refusal(&directory);
    assert!(
        matches!(refused, OpenError::Exposed { mode: 0o770, .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("chmod go-w"));
    chmod(&directory, 0o755);
    chmod(&directory.join("data.redb"), 0o640);
    let refused = refusal(&directory);
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    chmod(&directory.join("data.redb"), 0o600);
    assert_eq!(open(&directory).len(), 1);
}

#[test]
fn one_process_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let us = std::process::id();
    for refused in [
        refusal(place.path()),
        store::verify(place.path()).err().unwrap(),
    ] {
        assert!(
            refused
                .to_string()
                .contains(&format!("in use by process {us};")),
            "{refused}"
        );
    }
    drop(store);
    open(place.path());
}

#[test]
fn an_interrupted_first_start_is_begun_again() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("data.redb.new"), "half").unwrap();
    assert!(open(place.path()).is_empty());
    assert!(!place.path().join("data.redb.new").exists());
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let refused_and_left = |content: &[u8]| {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data.redb");
        fs::write(&data, content).unwrap();
        chmod(&data, 0o600);
        let refused = refusal(place.path());
        assert!(matches!(refused, OpenError::Damaged(_)), "{refused:?}");
        assert!(
            refused.to_string().contains("restore a backup"),
            "{refused}"
        );
        assert_eq!(fs::read(&data).unwrap(), content);
    };
    refused_and_left(b"");
    refused_and_left(&[0; 4_096]);
    refused_and_left(b"something else");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(refusal(&file), OpenError::NotADirectory(_)));
}

#[test]
fn a_later_format_and_another_database_are_refused() {
    const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
    let place = tempfile::tempdir().unwrap();
    drop(open(place.path()));
    let data = place.path().join("data.redb");
    let database = Database::open(&data).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut about = transaction.open_table(ABOUT).unwrap();
        about.insert("format", [2, 0, 0, 0].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let refused = refusal(place.path());
    assert!(
        matches!(refused, OpenError::Newer { found: 2, known: 1 }),
        "{refused}"
    );

    fs::remove_file(&data).unwrap();
    drop(Database::create(&data).unwrap());
    chmod(&data, 0o600);
    let refused = refusal(place.path());
    assert!(refused.to_string().contains("something else"), "{refused}");
}

#[test]
fn damage_is_named_by_its_key() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    wait(store.apply(set("the key", "value").into())).unwrap();
    wait(store.apply(set("other", 1).into())).unwrap();
    drop(store);
    let data = place.path().join("data.redb");
    let change = |change: &dyn Fn(&mut Records<'_>)| change_records(&data, change);
    change(&|records| {
        let mut record = records.remove(1).unwrap().unwrap().value().to_vec();
        *record.last_mut().unwrap() ^= 1;
        records.insert(1, record.as_slice()).unwrap();
    });
    let refused = refusal(place.path());
    assert!(
        refused.to_string().contains("record 1 of key \"the key\""),
        "{refused}"
    );
    // The refused store was not closed; looking at it neither needs that nor does it.
    let before = fs::read(&data).unwrap();
    let report = store::verify(place.path()).unwrap();
    assert_eq!((report.records, report.faults.len()), (1, 1));
    assert!(fs::read(&data).unwrap() == before);

    change(&|records| drop(records.remove(1).unwrap()));
    let report = store::verify(place.path()).unwrap();
    assert_eq!(report.faults, ["there are 1 records, and there were 2"]);
}

#[test]
fn an_old_record_that_comes_back_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data.redb");
    let records = |change: &dyn Fn(&mut Records<'_>)| change_records(&data, change);
    fill(&open(place.path()), 2);
    let old = RefCell::new(Vec::new());
    records(&|records| {
        let record = records.get(1).unwrap().unwrap();
        *old.borrow_mut() = record.value().to_vec();
    });
    fill(&open(place.path()), 2);
    records(&|records| drop(records.insert(1, old.borrow().as_slice()).unwrap()));
    let refused = refusal(place.path());
    assert!(
        refused.to_string().contains("not those that were there"),
        "{refused}"
    );
}

#[test]
fn a_backup_is_whole_and_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let store = open(&path("data"));
    fill(&store, 50);
    wait(store.apply(set_for("ends", 1, Ttl::For(1_000)).into())).unwrap();
    assert_eq!(store::backup(&store, &path("backup")).unwrap(), 51);
    let before = all(&store);
    fill(&store, 60);
    let report = store::verify(&path("backup")).unwrap();
    assert_eq!((report.revision, report.records), (51, 51));
    assert!(report.faults.is_empty());

    let restored = store::restore(&path("backup"), &path("restored")).unwrap();
    assert_eq!(restored, report);
    let again = open(&path("restored"));
    assert_eq!((again.revision(), all(&again)), (51, before));
    let refused = store::restore(&path("backup"), &path("data"))
        .err()
        .unwrap();
    assert!(matches!(refused, OpenError::NotEmpty(_)), "{refused}");

    // In place of the old one; one that cannot be finished leaves nothing.
    assert_eq!(store::backup(&store, &path("backup")).unwrap(), 111);
    assert!(store::backup(&store, &path("none/backup")).is_err());
    fs::create_dir(path("backup.new")).unwrap();
    fill(&store, 1);
    assert!(store::backup(&store, &path("backup")).is_err());
    assert_eq!(store::verify(&path("backup")).unwrap().revision, 111);
    let memory = Store::memory(Limits::default(), Arc::new(HandClock::new())).unwrap();
    fill(&memory, 3);
    store::backup(&memory, &path("memory")).unwrap();
    assert_eq!(store::verify(&path("memory")).unwrap().records, 3);

    let mut bytes = fs::read(path("backup")).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(path("backup"), bytes).unwrap();
    assert!(store::restore(&path("backup"), &path("never")).is_err());
    assert!(!path("never").exists());
}

#[test]
fn a_backup_under_load_is_of_one_revision() {
    let place = tempfile::tempdir().unwrap();
    let store = open(&place.path().join("data"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let batch = (0..10).map(|key| Operation::Increment(key.into(), 1));
                wait(store.apply(batch.collect::<Vec<_>>().into())).unwrap();
            }
        });
        for number in 0..5 {
            common::eventually("it goes on", || store.revision() > number * 3);
            let path = place.path().join(format!("backup{number}"));
            let revision = store::backup(&store, &path).unwrap();
            let target = place.path().join(format!("restored{number}"));
            store::restore(&path, &target).unwrap();
            let entries = all(&open(&target));
            assert_eq!(entries.len(), 10);
            let right = Value::Int(i64::try_from(revision).unwrap());
            assert!(entries.iter().all(|(_, entry)| *entry.value == right));
        }
        stop.store(true, Ordering::SeqCst);
    });
}
