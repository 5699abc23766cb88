//! What the API answers before anybody has logged in. With a server behind it, it is tested by `conformance/http`.

use crate::site::Site;

#[tokio::test]
async fn addresses_and_methods_are_checked_before_the_login() {
    let site = Site::open().await;
    let unknown = site.ask("GET", "/api/nonsense").await;
    assert_eq!((unknown.status, unknown.json()["error"].as_str()), (404, Some("Object Not Found")));
    let wrong = site.ask("POST", "/api/overview").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("HEAD, GET, OPTIONS")));
    let options = site.ask("OPTIONS", "/api/queues/%2F/q").await;
    assert_eq!((options.status, options.header("allow")), (200, Some("HEAD, GET, PUT, DELETE, OPTIONS")));
    assert_eq!(site.ask("GET", "/api/queues/%zz").await.status, 400);
}

#[tokio::test]
async fn a_server_that_recovers_says_so() {
    let site = Site::open().await;
    let answer = site.ask("GET", "/api/overview").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("not_ready")));
    assert_eq!(answer.header("vary"), Some("origin"));
}
