// Package allowance decides whether this device may push now, and how fast: from what the person set (rates, times of the week, metered
// connections, battery), from their pause and their wish to have it now, from what the device runs on and is connected by, and the time.
//
// It is about pushes between sites, and what a disk after a switch pulls from another site though the guest doesn't wait for it. What devices of one site send each other over their local network asks nobody, as it costs neither
// money nor anybody's bandwidth, and keeps the copies whole that a switch needs; and what a guest waits for is never held back.
//
// What counts, strongest first: settings that can't be read forbid all but nothing else does the person's wish (State.Asked); without it,
// their pause; a metered connection; a low battery; the times of the week. The rates are the least of all that apply: the person's, those of
// the times of the week, and on battery the battery's. The wish lifts the latter, as it does all about the battery, but no other.
//
// A metered connection is never used by itself, however long a push is overdue: no timer spends a person's money. They are told why
// nothing goes, and can wish for it, or allow it for good.
//
// Times of the week are those of a clock on the wall, in the zone of the time that is asked about: a night's window is an hour shorter or longer where the
// clocks change in it, and what lies wholly in the hour that is left out doesn't come that day.
//
// Everything here is pure. Package limits keeps the state; the engine's push scheduler obeys.
//
// To test: go test ./app/allowance
package allowance
