//! A RabbitMQ that speaks TLS, with a certificate of a private authority.

use std::fs;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use testcontainers::{CopyTargetOptions, ImageExt};

use crate::docker;
use crate::node::{AMQP_PORT, AMQPS_PORT, Node};
use crate::trial::Trial;
use crate::verdict::{Order, Verdict};

const CONFIGURATION: &str = "\
listeners.ssl.default = 5671
ssl_options.cacertfile = /etc/rabbitmq/ca.pem
ssl_options.certfile = /etc/rabbitmq/certificate.pem
ssl_options.keyfile = /etc/rabbitmq/key.pem
ssl_options.verify = verify_none
";

/// Who signs certificates.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a host, and its key.
    fn certify(&self, host: &str) -> (String, String) {
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A RabbitMQ whose certificate is for `localhost`, signed by this authority.
fn start(authority: &Authority) -> Node {
    let (certificate, key) = authority.certify("localhost");
    let files = [
        ("conf.d/90-tls.conf", CONFIGURATION.to_owned()),
        ("ca.pem", authority.certificate.pem()),
        ("certificate.pem", certificate),
        ("key.pem", key),
    ];
    let request = files.into_iter().fold(
        docker::request(&[AMQP_PORT, AMQPS_PORT]),
        |request, (name, text)| {
            let place = CopyTargetOptions::new(format!("/etc/rabbitmq/{name}")).with_mode(0o644);
            request.with_copy_to(place, text.into_bytes())
        },
    );
    Node::with(request)
}

#[test]
fn a_private_authority_is_trusted_if_it_is_named() {
    if !docker::answers() {
        return;
    }
    let authority = Authority::new();
    let node = start(&authority);
    let mut trial = Trial::with_queues("TLS", &[node.url()], "trial", &[]);
    let run_with = |authority: &Authority, host: &str, code| {
        fs::write(trial.site.path("ca.pem"), authority.certificate.pem()).unwrap();
        let port = node.container.port(AMQPS_PORT);
        let mut run = trial.site.start(&format!(
            "--broker amqps://guest:guest@{host}:{port} --exchange-prefix trial --ca-file ca.pem"
        ));
        run.ends(code);
        run.log()
    };

    let log = run_with(&Authority::new(), "localhost", 1);
    assert!(log.contains("certificate"), "{log}");
    let log = run_with(&authority, "127.0.0.1", 1);
    assert!(log.contains("check the host name"), "{log}");
    run_with(&authority, "localhost", 0);
    assert_eq!(trial.take(), 0);
    trial.is(&Verdict::new(Order::Strict));
    println!("observed: TLS, wrong authority or host name: the run ends, exit code 1");
}
