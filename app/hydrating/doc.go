// Package hydrating makes an owner's disk whole that lacks blocks after a switch: it finds those who hold them, asks them
// (p2p/fetch), and runs the disk's own order of fetching (vmdisk/hydrate) for as long as something is stale. The engine has a Run for each VM
// that it owns and whose disk isn't whole.
//
// Guaranteed: a device is asked as soon as it is connected, and not when it isn't; after one that could help has come, what failed before is tried at
// once; what nobody has who is there holds nothing else up, several who have parts are as good as one who has all; where nobody can help the guest's
// reads wait, and who is needed is said once. What Options.Allow forbids isn't pulled, but what the guest reads comes. A Run keeps nothing: another one, after a restart,
// goes on with what the disk knows.
//
// Not guaranteed: that anybody comes. The person may wait, or roll back (vmdisk.Store.Rollback, once the Run has ended).
//
// To test: go test -race ./app/hydrating ; with the engine: go test -race ./app -run "Whole|Fetched|Giver|Holder|Owner|Limits"
package hydrating
