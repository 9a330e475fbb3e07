//! The client configuration of a TLS check, made from the files that the config names, and built
//! again only when they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::alpn::Alpn;
use super::verifier::CRYPTO_PROVIDER;
use super::{client_auth, verifier};
use crate::config::Tls;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::value::{self, FileStamp};

/// The inputs of a client configuration. Probers with equal inputs share it, as all targets of a
/// database do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TlsFiles {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    skip_verify: bool,
    alpn: Alpn,
}

/// A client configuration and the files that it was built from.
pub(crate) struct TlsConfigCache {
    files: TlsFiles,
    built: Mutex<Option<BuiltConfig>>,
}

struct BuiltConfig {
    from: Vec<FileStamp>,
    config: Arc<ClientConfig>,
}

static SHARED: LazyLock<Mutex<HashMap<TlsFiles, Weak<TlsConfigCache>>>> =
    LazyLock::new(Mutex::default);
static SYSTEM_ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();

impl TlsConfigCache {
    /// Returns the cache for these inputs, which all probers with equal inputs share.
    pub(crate) fn shared(tls: &Tls, alpn: Alpn) -> Arc<Self> {
        let files = TlsFiles {
            ca: tls.ca_file.clone().filter(|_| !tls.insecure_skip_verify),
            cert: tls.cert_file.clone(),
            key: tls.key_file.clone(),
            skip_verify: tls.insecure_skip_verify,
            alpn,
        };
        let mut shared = lock(&SHARED);
        if let Some(cache) = shared.get(&files).and_then(Weak::upgrade) {
            return cache;
        }
        let cache = Arc::new(Self { files: files.clone(), built: Mutex::default() });
        shared.insert(files, Arc::downgrade(&cache));
        cache
    }

    /// Returns the configuration for the current content of the files.
    pub(crate) async fn config(self: &Arc<Self>) -> ProbeResult<Arc<ClientConfig>> {
        let files = &self.files;
        if files.ca.is_none()
            && files.cert.is_none()
            && files.key.is_none()
            && let Some(built) = lock(&self.built).as_ref()
        {
            return Ok(built.config.clone());
        }
        let cache = self.clone();
        value::blocking(Phase::Tls, move || cache.refresh())
            .await?
            .map_err(|why| Phase::Tls.inconclusive(why))
    }

    fn refresh(&self) -> Result<Arc<ClientConfig>, String> {
        // Before the files are read, so that the next call notices a change in between.
        let paths = [&self.files.ca, &self.files.cert, &self.files.key];
        let from: Vec<FileStamp> =
            paths.into_iter().flatten().map(|path| FileStamp::new(path)).collect();
        // Locked while building, so that one of a thousand targets builds and the others wait.
        let mut built = lock(&self.built);
        if let Some(built) = built.as_ref().filter(|built| built.from == from) {
            return Ok(built.config.clone());
        }
        let config = Arc::new(self.files.build()?);
        *built = Some(BuiltConfig { from, config: config.clone() });
        Ok(config)
    }
}

impl TlsFiles {
    fn build(&self) -> Result<ClientConfig, String> {
        let verifier = match (&self.ca, self.skip_verify) {
            (_, true) => verifier::accepting_any(),
            (Some(path), false) => {
                let listed = certificates("caFile", path)?;
                verifier::trusting_roots(Arc::new(roots_from(path, &listed)?), listed)?
            }
            (None, false) => verifier::trusting_roots(system_roots()?, Vec::new())?,
        };
        let builder = ClientConfig::builder_with_provider(CRYPTO_PROVIDER.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&self.cert, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates("certFile", cert)?;
                builder
                    .with_client_auth_cert(chain, private_key(key)?)
                    .map_err(|error| unusable_pair(cert, key, &error))?
            }
            (Some(_), None) => return Err("certFile needs a keyFile".into()),
            (None, Some(_)) => return Err("keyFile needs a certFile".into()),
        };
        config.alpn_protocols = self.alpn.protocols();
        client_auth::install(&mut config);
        Ok(config)
    }
}

impl Drop for TlsConfigCache {
    /// Removes its entry from the map. This takes constant time. A search for unused entries at
    /// each new one would take quadratic time for a config with many.
    fn drop(&mut self) {
        let mut shared = lock(&SHARED);
        // Another thread may have replaced the entry meanwhile.
        if shared.get(&self.files).is_some_and(|cache| cache.strong_count() == 0) {
            shared.remove(&self.files);
        }
    }
}

fn unusable_pair(cert: &Path, key: &Path, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("keyFile {} does not belong to certFile {}", key.display(), cert.display())
        }
        _ => format!(
            "cannot use certFile {} with keyFile {}: {error}",
            cert.display(),
            key.display()
        ),
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, String> {
    if let Some(roots) = SYSTEM_ROOTS.get() {
        return Ok(roots.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this host has no root certificates; set caFile".into());
    }
    Ok(SYSTEM_ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

fn roots_from(
    path: &Path,
    certificates: &[CertificateDer<'static>],
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate.clone())
            .map_err(|_| format!("caFile {} holds a malformed certificate", path.display()))?;
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(key, path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{key} {} is not valid PEM", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{key} {} holds no PEM certificate", path.display()));
    }
    Ok(certificates)
}

/// Reads a private key. An error never quotes the file, which would be part of the key.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read("keyFile", path)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| format!("keyFile {} holds no PEM private key", path.display()))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    value::read_file(path).map_err(|why| format!("cannot read {key} {}: {why}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configuration_is_shared_until_a_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let write = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            std::fs::write(&file, authority.pem()).unwrap();
        };
        write();
        let tls = Tls { ca_file: Some(file.clone()), ..Tls::default() };
        let (one, two) =
            (TlsConfigCache::shared(&tls, Alpn::None), TlsConfigCache::shared(&tls, Alpn::None));
        assert!(Arc::ptr_eq(&one, &two));
        let first = one.config().await.unwrap();
        assert!(Arc::ptr_eq(&first, &two.config().await.unwrap()));
        write();
        let second = one.config().await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &two.config().await.unwrap()));

        assert!(!Arc::ptr_eq(&one, &TlsConfigCache::shared(&tls, Alpn::Http1)));
        let skipping = Tls { insecure_skip_verify: true, ..tls.clone() };
        assert!(!Arc::ptr_eq(&one, &TlsConfigCache::shared(&skipping, Alpn::None)));
        drop(one);
        assert!(
            Arc::ptr_eq(&two, &TlsConfigCache::shared(&tls, Alpn::None)),
            "one of two is still in use"
        );
        drop(two);
        let held = lock(&SHARED).keys().any(|files| files.ca.as_deref() == Some(&file));
        assert!(!held, "an unused configuration is dropped");
    }
}
