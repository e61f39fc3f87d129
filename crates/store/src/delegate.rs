//! Stores around another: what they leave as it is.

/// Within `impl Store`, the methods that the store in a field answers: `delegate!(inner: get, range);`.
#[macro_export]
macro_rules! delegate {
    ($inner:ident: $($method:ident),+) => { $($crate::delegate!(@$method $inner);)+ };
    (@get $inner:ident) => { $crate::delegate!(@fn $inner get(key: &'a str) -> $crate::Got); };
    (@range $inner:ident) => {
        $crate::delegate!(@fn $inner range(prefix: &'a str, options: $crate::RangeOptions) -> $crate::Ranged);
    };
    (@write $inner:ident) => {
        $crate::delegate!(@fn $inner write(write: $crate::Write) -> $crate::Written, $crate::WriteError);
    };
    (@watch $inner:ident) => {
        $crate::delegate!(@fn $inner watch(prefix: &'a str, after: $crate::Revision) -> $crate::WatchStream);
    };
    (@revision $inner:ident) => { $crate::delegate!(@fn $inner revision() -> $crate::Revision); };
    (@request_progress $inner:ident) => { $crate::delegate!(@fn $inner request_progress() -> bool); };
    (@compact $inner:ident) => { $crate::delegate!(@fn $inner compact(upto: $crate::Revision) -> ()); };
    (@advance $inner:ident) => { $crate::delegate!(@fn $inner advance(to: $crate::Revision) -> $crate::Revision); };
    (@lease $inner:ident) => { $crate::delegate!(@fn $inner lease(ttl: std::time::Duration) -> $crate::LeaseId); };
    (@renew $inner:ident) => { $crate::delegate!(@fn $inner renew(lease: $crate::LeaseId) -> ()); };
    (@revoke $inner:ident) => { $crate::delegate!(@fn $inner revoke(lease: $crate::LeaseId) -> ()); };
    (@fn $inner:ident $name:ident($($arg:ident: $ty:ty),*) -> $($out:ty),+) => {
        fn $name<'a>(&'a self, $($arg: $ty),*) -> $crate::BoxFuture<'a, $crate::Result<$($out),+>> {
            self.$inner.$name($($arg),*)
        }
    };
}
