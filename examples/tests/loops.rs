//! The programs that use parts of the library in a loop of their own learn, and those with a seed always the same.

use std::process::Command;

/// Standard output of a program that succeeds, which each does only if it learnt what it should.
fn run(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn one_loss_in_a_candle_loop() {
    let output = run(env!("CARGO_BIN_EXE_losses_only"));
    assert_eq!(output.lines().count(), 7, "{output}");
    assert!(output.lines().last().unwrap().starts_with("new sentences: KL divergence 0.0"), "{output}");
}

#[test]
fn an_own_loop() {
    let output = run(env!("CARGO_BIN_EXE_own_loop"));
    assert_eq!(output.lines().count(), 7, "{output}");
    assert_eq!(output, run(env!("CARGO_BIN_EXE_own_loop")));
}

#[test]
fn a_policy_in_an_own_loop() {
    let output = run(env!("CARGO_BIN_EXE_policy_only"));
    assert_eq!(output.lines().count(), 10, "{output}");
    assert_eq!(output, run(env!("CARGO_BIN_EXE_policy_only")));
}
