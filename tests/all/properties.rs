//! Slots under schedules that nobody thought of.

use std::pin::Pin;
use std::time::Duration;

use http::Response;
use proptest::prelude::*;
use tokio::time::timeout;
use tower::{Layer, Service};
use tower_429::{ConcurrencyLimitLayer, Priority, ResponseBody};

use crate::support_limit::{Boom, Desk, DeskCall, Scripted, Step, ms, named, request_with};

#[derive(Debug, Clone)]
enum Do {
    Call(Priority),
    Poll(usize),
    PollWoken,
    Drop(usize),
    Answer(usize, bool),
    Fail(usize),
    DropBody(usize),
    Resize(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Do> {
    let class = prop_oneof![Just(Priority::Interactive), Just(Priority::Normal), Just(Priority::Batch)];
    prop_oneof![
        5 => class.prop_map(Do::Call),
        5 => any::<usize>().prop_map(Do::Poll),
        3 => Just(Do::PollWoken),
        2 => any::<usize>().prop_map(Do::Drop),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(call, body)| Do::Answer(call, body)),
        1 => any::<usize>().prop_map(Do::Fail),
        2 => any::<usize>().prop_map(Do::DropBody),
        1 => (0..6_usize).prop_map(Do::Resize),
        2 => prop_oneof![Just(1), Just(19), Just(21), Just(100)].prop_map(Do::Pass),
    ]
}

type Call = tokio_test::task::Spawn<Pin<Box<dyn Future<Output = Result<Response<ResponseBody<Scripted>>, Boom>>>>>;

/// The world: every call is in one of these places, or over.
struct World {
    layer: ConcurrencyLimitLayer,
    desk: Desk,
    calls: Vec<Call>,
    on_desk: Vec<DeskCall>,
    bodies: Vec<ResponseBody<Scripted>>,
    size: usize,
}

impl World {
    fn poll(&mut self, at: usize) {
        if let std::task::Poll::Ready(answer) = self.calls[at].poll() {
            drop(self.calls.remove(at));
            self.bodies
                .extend(answer.map(Response::into_body).ok().filter(|body| !http_body::Body::is_end_stream(body)));
        }
    }

    fn poll_woken(&mut self) {
        // Whoever is woken comes; what it then wakes comes, too.
        while let Some(at) = self.calls.iter().position(tokio_test::task::Spawn::is_woken) {
            self.poll(at);
        }
    }

    fn take_arrivals(&mut self) {
        while self.desk.len() > 0 {
            self.on_desk.push(self.desk.take());
        }
    }
}

fn run(steps: Vec<Do>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let layer = ConcurrencyLimitLayer::new(2);
        let desk = Desk::default();
        let mut world = World { layer, desk, calls: Vec::new(), on_desk: Vec::new(), bodies: Vec::new(), size: 2 };
        let mut service = world.layer.layer(world.desk.clone());
        let mut most = 2;
        for step in steps {
            // tokio lets a task do only so much in one poll.
            tokio::task::yield_now().await;
            let pick = |len: usize, at: usize| (len > 0).then(|| at % len);
            match step {
                Do::Call(class) => {
                    let call = service.call(request_with(class));
                    world.calls.push(tokio_test::task::spawn(Box::pin(call)));
                }
                Do::Poll(at) => {
                    if let Some(at) = pick(world.calls.len(), at) {
                        world.poll(at);
                    }
                }
                Do::PollWoken => world.poll_woken(),
                Do::Drop(at) => {
                    if let Some(at) = pick(world.calls.len(), at) {
                        drop(world.calls.remove(at));
                    }
                }
                Do::Answer(at, body) => {
                    if let Some(at) = pick(world.on_desk.len(), at) {
                        let steps = if body { vec![Step::Data("a"), Step::Data("b")] } else { Vec::new() };
                        world.on_desk.remove(at).answer(Scripted::new(steps).exact());
                    }
                }
                Do::Fail(at) => {
                    if let Some(at) = pick(world.on_desk.len(), at) {
                        world.on_desk.remove(at).fail();
                    }
                }
                Do::DropBody(at) => {
                    if let Some(at) = pick(world.bodies.len(), at) {
                        drop(world.bodies.remove(at));
                    }
                }
                Do::Resize(n) => {
                    world.layer.handle().resize(n);
                    world.size = n;
                }
                Do::Pass(time) => tokio::time::sleep(ms(time)).await,
            }
            world.take_arrivals();
            let handle = world.layer.handle();
            let in_use = handle.in_use();
            // A shrunken limit lets those go on that run; it lets nobody else in.
            prop_assert!(in_use <= most.max(world.size), "{in_use} of {}", world.size);
            most = in_use.max(world.size);
            // Every permit belongs to a call or to a body that has not ended.
            prop_assert!(in_use >= world.bodies.len());
            prop_assert!(in_use + handle.queued() <= world.calls.len() + world.bodies.len());
        }
        // Whatever happened: with room for one, everybody who waits gets a turn, and at the end nothing is left.
        if world.size == 0 {
            world.layer.handle().resize(1);
        }
        // Those that nobody has polled yet may hold a permit, or have no place.
        for at in (0..world.calls.len()).rev() {
            world.poll(at);
        }
        let rest = async {
            while !world.calls.is_empty() {
                tokio::time::sleep(ms(1)).await;
                world.poll_woken();
                world.bodies.clear();
                world.take_arrivals();
                world.on_desk.drain(..).for_each(|call| call.answer(Scripted::default().exact()));
            }
        };
        prop_assert!(timeout(Duration::from_secs(30), rest).await.is_ok(), "somebody is never called");
        world.bodies.clear();
        prop_assert_eq!((world.layer.handle().in_use(), world.layer.handle().queued()), (0, 0));
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn slots_are_conserved_whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        run(steps)?;
    }

    #[test]
    fn within_a_class_calls_go_in_order_when_they_come_when_called(
        calls in prop::collection::vec((0..3_usize, any::<bool>(), any::<usize>()), 1..60),
        limit in 1..5_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let classes = [Priority::Interactive, Priority::Normal, Priority::Batch];
        let order = runtime.block_on(async {
            let desk = Desk::default();
            let mut service = ConcurrencyLimitLayer::new(limit).layer(desk.clone());
            let mut order = Vec::new();
            let mut tasks: Vec<_> = Vec::new();
            for (number, (class, given_up, _)) in calls.iter().enumerate() {
                let call = service.call(named(request_with(classes[*class]), format!("{class}-{number:03}")));
                // Some are given up while they wait.
                let time = if *given_up { ms(number as u64 % 7 * 3) } else { Duration::from_secs(3_600) };
                tasks.push(tokio::spawn(async move { timeout(time, call).await.is_ok() }));
            }
            let mut on_desk = Vec::new();
            let mut picks = calls.iter().map(|(.., pick)| *pick).cycle();
            while tasks.iter().any(|task| !task.is_finished()) {
                tokio::time::sleep(ms(1)).await;
                while desk.len() > 0 {
                    let call = desk.take();
                    order.push(call.request.headers()["x-name"].to_str().unwrap().to_owned());
                    on_desk.push(call);
                }
                let pick = picks.next().unwrap_or_default();
                if !on_desk.is_empty() {
                    on_desk.remove(pick % on_desk.len()).empty();
                }
            }
            order
        });
        for class in ["0", "1", "2"] {
            // One that is given up at the very moment when it is called frees its permit at once: more than the limit are
            // called at that moment, so only those that stay are compared.
            let stays = |name: &&String| !calls[name[2..].parse::<usize>().unwrap()].1;
            let of_class: Vec<_> = order.iter().filter(|name| name.starts_with(class)).filter(stays).collect();
            for (at, call) in of_class.iter().enumerate() {
                // As many as are called at one moment may come in any order.
                prop_assert!(of_class.iter().skip(at + limit).all(|later| later > call), "{of_class:?}");
            }
        }
        prop_assert!(order.len() >= calls.iter().filter(|(_, given_up, _)| !given_up).count());
    }
}
