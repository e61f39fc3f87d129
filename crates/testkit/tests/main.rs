//! The tools of tests, tested.

use keelson_testkit::{ControlPlane, eventually};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn waiting_returns_what_was_found() {
    let mut looks = 0;
    let found = eventually(Duration::from_secs(5), "the third look", || {
        looks += 1;
        std::future::ready(if looks == 3 { Ok(looks) } else { Err("not yet") })
    });
    assert_eq!(found.await, 3);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not within 5s: a miracle; last seen: nothing new")]
async fn waiting_in_vain_shows_the_last_state() {
    eventually(Duration::from_secs(5), "a miracle", async || Err::<(), _>("nothing new")).await;
}

#[tokio::test]
async fn a_server_that_is_not_built_is_named() {
    let error = ControlPlane::builder().binary("/nowhere/keelson-api-server").start().await.err().unwrap();
    assert!(error.to_string().contains("no program /nowhere/keelson-api-server"), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_an_error() {
    let error = ControlPlane::builder().binary("/bin/false").start().await.err().unwrap();
    assert!(error.to_string().contains("ended at once"), "{error}");
}
