//! From start to end.

use std::{io::Read as _, io::Write as _, net::TcpStream};

use crate::running::{Folder, Running, fails, ferrymq};

#[test]
fn it_announces_its_listeners_and_is_ready() {
    let data = Folder::created();
    let server = Running::start(&data);
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(server.get(path), ("HTTP/1.1 200 OK".to_owned(), r#"{"status":"ok"}"#.to_owned()));
    }
    assert!(server.get("/api/overview").0.contains("401"), "nobody has logged in");
    assert!(server.get("/nothing").0.contains("404"));
    assert!(server.terminate().success());
}

#[test]
fn amqp_is_spoken_on_the_port_that_was_announced() {
    let data = Folder::created();
    let server = Running::start(&data);
    let mut client = TcpStream::connect(server.address("amqp")).unwrap();
    client.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let mut head = [0; 11];
    client.read_exact(&mut head).unwrap();
    // A method frame on channel 0 with connection.start in it.
    assert_eq!((head[0], &head[1..3], &head[7..11]), (1, &[0, 0][..], &[0, 10, 0, 10][..]));
}

#[test]
fn it_ends_in_order_with_clients_connected_and_starts_again() {
    let data = Folder::created();
    let server = Running::start(&data);
    let _client = TcpStream::connect(server.address("amqp")).unwrap();
    assert!(server.terminate().success());
    assert!(Running::start(&data).terminate().success());
}

#[test]
fn a_second_server_on_the_data_directory_says_so() {
    let data = Folder::created();
    let _server = Running::start(&data);
    let mut second = ferrymq();
    let (code, log) = fails(second.args(["--listen", "amqp=127.0.0.1:0", "--data-dir"]).arg(data.0.join("data")));
    assert_eq!(code, Some(1));
    assert!(log.contains("is in use by another server"), "{log}");
}

#[test]
fn a_port_in_use_is_an_error_that_helps() {
    let (data, other) = (Folder::created(), Folder::created());
    let server = Running::start(&data);
    let listen = format!("amqp={}", server.address("amqp"));
    let (code, log) = fails(ferrymq().args(["--listen", &listen, "--data-dir"]).arg(other.0.join("data")));
    assert_eq!(code, Some(1));
    assert!(
        log.contains("another program, or another listener of this one, has this port; choose another with --listen"),
        "{log}"
    );
}

#[test]
fn a_wrong_option_in_a_file_is_found_before_anything_starts() {
    let folder = Folder::created();
    let file = folder.0.join("ferrymq.toml");
    std::fs::write(&file, "[limits]\nchanels_max = 5\n").unwrap();
    let (code, log) = fails(ferrymq().arg("--config").arg(&file));
    assert_eq!(code, Some(1));
    let expected = format!(
        "ferrymq: {} line 2, limits.chanels_max: there is no such option; did you mean limits.channels_max?\n",
        file.display()
    );
    assert_eq!(log, expected);
}

#[test]
fn a_directory_keeps_the_number_of_journal_files_it_was_made_with() {
    let data = Folder::created();
    let serve = || {
        let mut command = ferrymq();
        command.args(["--listen", "amqp=127.0.0.1:0", "--storage-file-bytes", "256 KiB"]);
        command
    };
    assert!(Running::start_with(&data, serve().args(["--storage-files", "6"])).terminate().success());
    let (code, log) = fails(serve().args(["--storage-files", "7", "--data-dir"]).arg(data.0.join("data")));
    assert_eq!(code, Some(1));
    let expected = "storage.files is 7, and the data directory was made with 6, which stays; leave the option out";
    assert!(log.contains(expected), "{log}");
    assert!(Running::start_with(&data, &mut serve()).terminate().success());
}

#[test]
fn a_new_data_directory_with_other_files_in_it_is_named() {
    let data = Folder::created();
    std::fs::create_dir(data.0.join("data")).unwrap();
    std::fs::write(data.0.join("data/x.txt"), "").unwrap();
    let serve = || Running::start_logged(&data, ferrymq().args(["--listen", "amqp=127.0.0.1:0"]));
    let log = serve().terminate_logged();
    assert!(log.contains("has other files in it, such as x.txt; they stay there"), "{log}");
    assert!(!serve().terminate_logged()[log.len()..].contains("x.txt"), "the second time it is a data directory");
}

#[test]
fn its_name_and_its_version_are_what_one_calls_it() {
    let output = ferrymq().arg("-V").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("ferrymq {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_flag_is_suggested_only_where_it_is_like_what_was_written() {
    let (code, log) = fails(ferrymq().args(["serve", "--nosuchflag"]));
    assert_eq!(code, Some(2));
    assert!(log.contains("'--nosuchflag'") && !log.contains("--config"), "{log}");
    let (_, log) = fails(ferrymq().args(["serve", "--data-dri", "x"]));
    assert!(log.contains("a similar argument exists: '--data-dir'"), "{log}");
}
