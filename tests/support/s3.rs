//! The S3 server that scripts/test.sh starts, as tests see it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::atomic::{AtomicU32, Ordering};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::signer::Signer;

pub struct Server {
    pub endpoint: String,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Sets the credentials that child processes use, too.
    pub fn from_environment() -> Self {
        let endpoint = std::env::var("HUSHFS_TEST_S3")
            .expect("HUSHFS_TEST_S3 names no S3 server: run the tests by scripts/test.sh, which starts one");
        // SAFETY: nextest runs each test in a process of its own, and this is its first act.
        unsafe {
            std::env::set_var("AWS_ACCESS_KEY_ID", "testtest");
            std::env::set_var("AWS_SECRET_ACCESS_KEY", "testtest");
            std::env::set_var("AWS_REGION", "us-east-1");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { endpoint, runtime }
    }

    /// A new bucket, named for the test and this process.
    pub fn make_bucket(&self, test: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let bucket = format!("{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let store = self.client(&bucket);
        // object_store cannot make a bucket: a signed PUT of nothing does.
        let url = self
            .runtime
            .block_on(store.signed_url(
                reqwest_method(),
                &object_store::path::Path::default(),
                std::time::Duration::from_secs(60),
            ))
            .expect("a signed URL");
        let status =
            std::process::Command::new("curl").args(["-sf", "-X", "PUT", url.as_str()]).status().expect("curl runs");
        assert!(status.success(), "the bucket could not be made");
        bucket
    }

    pub fn bucket_bytes(&self, bucket: &str) -> u64 {
        use futures::TryStreamExt;
        let sizes = self.client(bucket);
        let listed = self.runtime.block_on(sizes.list(None).map_ok(|object| object.size).try_collect::<Vec<u64>>());
        listed.expect("a listing").iter().sum()
    }

    pub fn client(&self, bucket: &str) -> object_store::aws::AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_bucket_name(bucket)
            .with_region("us-east-1")
            .with_access_key_id("testtest")
            .with_secret_access_key("testtest")
            .build()
            .expect("an S3 client")
    }

    /// Deletes, damages, or looks at what is in the bucket.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

fn reqwest_method() -> http::Method {
    http::Method::PUT
}
