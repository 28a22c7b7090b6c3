//! Steps of the core, committed: the rows are what the step left.

use mainspring::core::dag::Expand;
use mainspring::core::run::{Capacity, Input, Instances, Outcome, Outputs};
use mainspring::core::state::TaskState;
use mainspring::core::step::step;

use super::home::{Driven, Home, fence, session, task, tasks, ti};

async fn follow(run: &mut Driven, input: Input) {
    run.now.0 += 1_000_000;
    let decision = step(&run.dag, &mut run.run, &[input], &Capacity::default(), run.now);
    assert_eq!(decision.refused, []);
    let key = run.key();
    run.run.version = run.store.commit(&run.dag, &key, run.run.version, &decision, run.now).await.unwrap();
    run.check().await;
}

pub(crate) async fn a_cancelled_placeholder_that_is_cleared_gives_way_to_its_list(home: Home) {
    let mut list = task("load");
    list.expand = Some(Expand::Fixed(2));
    let mut run = home.run_of(vec![list]).await;
    follow(&mut run, Input::Cancel).await;
    follow(&mut run, Input::Clear { tis: vec![ti(0)] }).await;
    assert!(matches!(&run.run.tasks[0], Instances::Mapped(all) if all.len() == 2));
}

pub(crate) async fn marking_a_repeated_attempt_keeps_what_the_first_one_left(home: Home) {
    let mut run = home.run_of(tasks(1)).await;
    let claim = |number| Input::Claimed { ti: ti(0), fence: fence(number), session: session("w") };
    let left = Outputs {
        json: r#"{"files":[1]}"#.into(),
        list_lengths: vec![("files".into(), 1)],
        ..Outputs::default()
    };
    follow(&mut run, Input::Tick).await;
    follow(&mut run, claim(1)).await;
    follow(&mut run, Input::Reported { ti: ti(0), fence: fence(1), outcome: Outcome::Succeeded(left) }).await;
    follow(&mut run, Input::Clear { tis: vec![ti(0)] }).await;
    follow(&mut run, claim(2)).await;
    follow(&mut run, Input::Mark { tis: vec![ti(0)], state: TaskState::Success }).await;
    assert_eq!(run.store.outputs(&run.key()).await.unwrap().len(), 1);
}
