//! The health checks, as an orchestrator sees them.

use ferrymq_model::Readiness;
use serde_json::json;

use crate::site::Site;

#[tokio::test]
async fn a_ready_server_says_so() {
    let site = Site::open().await;
    for path in ["/health/live", "/health/ready"] {
        let answer = site.ask("GET", path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json(), json!({"status": "ok"}), "{path}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why_and_is_alive() {
    let site = Site::open().await;
    site.server.set(Readiness::NotReady("the data directory is being recovered".into()));
    let answer = site.ask("GET", "/health/ready").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({"status": "not ready", "reason": "the data directory is being recovered"}));
    assert_eq!(site.ask("GET", "/health/live").await.status, 200);

    site.server.set(Readiness::Ready);
    assert_eq!(site.ask("GET", "/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_server_whose_disk_is_full_serves_consumers_and_says_so() {
    let site = Site::open().await;
    site.server.set(Readiness::Blocked("publishers wait: the disk accepts no more".into()));
    let answer = site.ask("GET", "/health/ready").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"status": "blocked", "reason": "publishers wait: the disk accepts no more"}));
}

#[tokio::test]
async fn every_answer_names_the_server_and_is_not_cached() {
    let site = Site::open().await;
    for path in ["/health/live", "/health/ready", "/nowhere"] {
        let answer = site.ask("GET", path).await;
        assert!(answer.header("server").is_some_and(|server| server.starts_with("FerryMQ/")), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_404_that_helps() {
    let site = Site::open().await;
    let answer = site.ask("GET", "/nothing").await;
    assert_eq!(answer.status, 404);
    let problem = answer.json();
    assert_eq!(problem["error"], "not_found");
    assert!(problem["reason"].as_str().unwrap().contains("/nothing"));
}

#[tokio::test]
async fn health_is_asked_and_not_told() {
    let site = Site::open().await;
    let answer = site.ask("POST", "/health/ready").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    assert_eq!(answer.json()["error"], "method_not_allowed");
    assert_eq!(site.ask("HEAD", "/health/ready").await.status, 200);
}
