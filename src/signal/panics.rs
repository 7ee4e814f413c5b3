//! Panics where a test asks for one, so that what catches them is tested.

use std::cell::Cell;

thread_local! {
    static PLACE: Cell<&'static str> = const { Cell::new("") };
}

/// Has this thread panic when it comes by `place` the next time.
pub fn panic_at(place: &'static str) {
    PLACE.set(place);
}

/// Panics if a test has asked for it.
pub fn come_by(place: &str) {
    if PLACE.get() == place {
        PLACE.set("");
        panic!("a test has asked for it");
    }
}
