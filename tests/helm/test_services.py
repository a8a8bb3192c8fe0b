"""Gateway, page and store."""

import pytest

from tests.helm.chart import CHART, Object, Refused, Rendered, container, render, variables

RESTRICTED = CHART / "ci" / "restricted.yaml"
S3 = {"store": {"type": "s3"}, "minio": {"endpoint": "https://s3.example"}}


def pod(name: str, values: Object | None = None) -> Object:
    return render(values).pods()[f"demo-seedvr2-{name}"]


def box(name: str, values: Object | None = None) -> Object:
    return container(pod(name, values), name)


def test_a_directory_belongs_to_one_gateway_at_a_time():
    deployment = render().get("Deployment", "gateway")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    data = next(each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "data")
    assert data["persistentVolumeClaim"] == {"claimName": "demo-seedvr2-store"}
    with pytest.raises(Refused, match="a directory belongs to one gateway"):
        render({"gateway": {"replicas": 2}})


def test_what_people_made_stays_when_the_release_goes_unless_they_say_otherwise():
    assert render().get("PersistentVolumeClaim", "store")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    gone = render({"store": {"directory": {"keep": False}}}).get("PersistentVolumeClaim", "store")
    assert "annotations" not in gone["metadata"]
    assert not render({"store": {"directory": {"existingClaim": "mine"}}}).all("PersistentVolumeClaim")


def test_gateways_that_share_a_bucket_are_replaced_without_a_gap():
    deployment = render({**S3, "gateway": {"replicas": 3}}).get("Deployment", "gateway")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    said = variables(container(deployment["spec"]["template"], "gateway"))
    assert said["SEEDVR2_GATEWAY_LEASES"] == "kubernetes"
    assert "SEEDVR2_GATEWAY_STORE_DIRECTORY" not in said


def test_a_gateway_looks_for_workers_of_its_own_release():
    said = variables(box("gateway"))
    assert said["SEEDVR2_GATEWAY_DISCOVERY"] == "kubernetes"
    assert said["SEEDVR2_GATEWAY_KUBERNETES_SELECTOR"] == "seedvr2.io/pool,app.kubernetes.io/instance=demo"
    labels = render().get("Service", "inference-cpu")["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "demo"
    assert "seedvr2.io/pool" in labels


def test_a_gateway_stops_listening_after_it_was_taken_out_and_calls_can_end():
    spec = pod("gateway", {"gateway": {"preStopSeconds": 7, "drainSeconds": 40}})["spec"]
    only = spec["containers"][0]
    assert only["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert variables(only)["SEEDVR2_GATEWAY_DRAIN_S"] == "40"
    assert spec["terminationGracePeriodSeconds"] > 7 + 40


def test_where_the_bucket_is_reaches_gateway_and_job_alike():
    values = {**S3, "minio": {"endpoint": "https://s3.example:9000", "bucket": "videos", "region": "eu-1", "pathStyle": False,
                              "prefix": "team/", "tls": {"caSecret": "ca"}}, "gateway": {"s3Settings": {"tries": 3}}}  # fmt: skip
    for name in ("gateway", "bucket-1"):
        template = pod(name, values)
        said = variables(template["spec"]["containers"][0])
        assert said["SEEDVR2_S3_ENDPOINT"] == "https://s3.example:9000"
        assert (said["SEEDVR2_S3_BUCKET"], said["SEEDVR2_S3_PREFIX"], said["SEEDVR2_S3_REGION"]) == ("videos", "team/", "eu-1")
        assert said["SEEDVR2_S3_PATH_STYLE"] == "false"
        assert said["SEEDVR2_S3_TRIES"] == "3"
        assert said["SEEDVR2_S3_CA_FILE"] == "/run/seedvr2/s3-ca/ca.crt"


def test_the_bucket_is_made_by_our_own_image_or_not_at_all():
    job = render(S3).get("Job", "bucket-1")
    only = job["spec"]["template"]["spec"]["containers"][0]
    assert only["command"] == ["python", "-m", "services.gateway.store.bucket"]
    assert only["image"] == box("gateway", S3)["image"]
    assert not render({**S3, "minio": {"endpoint": "https://s3.example", "createBucket": {"enabled": False}}}).all("Job")
    assert not render().all("Job")


def test_s3_without_a_server_is_refused():
    with pytest.raises(Refused, match=r"name the server in minio\.endpoint"):
        render({"store": {"type": "s3"}})


def test_the_bundled_server_is_off_and_where_it_is_on_pinned_by_digest():
    assert not render(S3).all("StatefulSet")
    rendered = render({"store": {"type": "s3"}, "minio": {"server": {"enabled": True}}})
    server = rendered.get("StatefulSet", "s3")["spec"]["template"]["spec"]["containers"][0]
    assert "@sha256:" in server["image"]
    assert (
        variables(box("gateway", {"store": {"type": "s3"}, "minio": {"server": {"enabled": True}}}))["SEEDVR2_S3_ENDPOINT"]
        == "http://demo-seedvr2-s3.video.svc:8333"
    )
    assert rendered.get("Service", "s3")["spec"]["ports"][0]["port"] == 8333


def test_large_numbers_stay_whole():
    said = variables(box("gateway", {"gateway": {"settings": {"max_upload_bytes": 53687091200, "reflection": False}}}))
    assert said["SEEDVR2_GATEWAY_MAX_UPLOAD_BYTES"] == "53687091200"
    assert said["SEEDVR2_GATEWAY_REFLECTION"] == "false"


def test_what_users_set_goes_before_what_the_chart_sets():
    assert variables(box("gateway", {"gateway": {"settings": {"span_work_s": 60}}}))["SEEDVR2_GATEWAY_SPAN_WORK_S"] == "60"


def test_the_page_finds_the_gateway_and_with_tls_believes_it():
    assert variables(box("ui"))["SEEDVR2_UI_GATEWAY_ADDRESS"] == "demo-seedvr2-gateway-headless.video.svc:50051"
    template = render({}, RESTRICTED).pods()["demo-seedvr2-ui"]
    said = variables(container(template, "ui"))
    assert said["SEEDVR2_UI_GATEWAY_ADDRESS"] == "grpcs://demo-seedvr2-gateway-headless.video.svc:50051"
    assert said["SEEDVR2_UI_GATEWAY_CA_FILE"] == "/run/seedvr2/gateway-ca/ca.crt"
    ca = next(each for each in template["spec"]["volumes"] if each["name"] == "gateway-ca")
    assert ca["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}], "the gateway's key is nothing for the page"


def test_workers_and_gateways_show_each_other_certificates():
    rendered = render({}, RESTRICTED)
    worker = variables(container(rendered.pods()["demo-seedvr2-inference-3b"], "inference"))
    gateway = variables(container(rendered.pods()["demo-seedvr2-gateway"], "gateway"))
    assert worker["SEEDVR2_INFERENCE_TLS_CLIENT_CA_FILE"] == "/run/seedvr2/tls/ca.crt"
    assert gateway["SEEDVR2_GATEWAY_WORKER_CERTIFICATE_FILE"] == "/run/seedvr2/worker-tls/tls.crt"
    assert gateway["SEEDVR2_GATEWAY_WORKER_TLS_NAME"] == "workers.seedvr2.internal"
    with pytest.raises(Refused, match="go together"):
        render({"inference": {"tls": {"existingSecret": "alone"}}})


def test_who_may_come_in_is_a_file_of_a_secret_and_settings():
    template = render({}, RESTRICTED).pods()["demo-seedvr2-gateway"]
    said = variables(container(template, "gateway"))
    assert said["SEEDVR2_IDENTITY_TOKEN_FILE"] == "/run/seedvr2/identity/tokens"
    assert said["SEEDVR2_IDENTITY_OIDC_AUDIENCE"] == "seedvr2"
    volume = next(each for each in template["spec"]["volumes"] if each["name"] == "identity")
    assert volume["secret"]["secretName"] == "seedvr2-tokens"
    assert not [name for name in variables(box("gateway")) if "IDENTITY" in name]


def test_sign_ins_are_sealed_with_a_key_of_a_secret():
    rendered = render()
    assert len(rendered.get("Secret", "ui")["stringData"]["session-key"]) == 64
    assert variables(box("ui"))["SEEDVR2_UI_SESSION_KEY_FILE"] == "/run/seedvr2/session/session-key"
    assert not render({"ui": {"signIn": {"existingSecret": "mine"}}}).all("Secret")


def test_a_proxy_that_signs_people_in_is_believed_with_a_token_only():
    said = variables(container(render({}, RESTRICTED).pods()["demo-seedvr2-ui"], "ui"))
    assert (said["SEEDVR2_UI_USER_HEADER"], said["SEEDVR2_UI_TRUSTED_PROXIES"]) == ("x-forwarded-user", "10.0.0.0/8")
    assert said["SEEDVR2_UI_TOKEN_FILE"] == "/run/seedvr2/token/token"
    with pytest.raises(Refused, match="go together"):
        render({"ui": {"signIn": {"userHeader": "x-forwarded-user"}}})


def test_gateways_and_workers_send_traces_to_one_collector():
    rendered = render({}, RESTRICTED)
    for name in ("gateway", "inference-3b"):
        said = variables(rendered.pods()[f"demo-seedvr2-{name}"]["spec"]["containers"][0])
        assert said["SEEDVR2_TRACING_ENDPOINT"] == "https://collector.monitoring.svc:4317"
        assert said["SEEDVR2_TRACING_SAMPLE_RATIO"] == "0.1"


def test_the_http_api_is_at_a_port_of_the_service_or_off():
    assert variables(box("gateway"))["SEEDVR2_GATEWAY_REST_ADDRESS"] == "0.0.0.0:50052"
    ports = {port["name"]: port for port in render().get("Service", "gateway")["spec"]["ports"]}
    assert (ports["rest"]["port"], ports["rest"]["targetPort"]) == (80, "rest")
    off = {"gateway": {"rest": {"enabled": False}}}
    assert variables(box("gateway", off))["SEEDVR2_GATEWAY_REST_ADDRESS"] == ""
    assert "rest" not in {port["name"] for port in render(off).get("Service", "gateway")["spec"]["ports"]}


def test_several_pages_keep_a_browser_at_one_of_them():
    assert "sessionAffinity" not in render().get("Service", "ui")["spec"]
    assert render({"ui": {"replicas": 2}}).get("Service", "ui")["spec"]["sessionAffinity"] == "ClientIP"


def test_without_a_page_nothing_of_it_is_there():
    rendered = render({"ui": {"enabled": False}, "ingress": {"enabled": True}})
    assert not [each for each in rendered.objects if each["metadata"]["name"] == "demo-seedvr2-ui"]


def test_tests_ask_page_gateway_and_bucket():
    pods = {each["metadata"]["name"]: each for each in render(S3).all("Pod")}
    assert set(pods) == {f"demo-seedvr2-test-{name}" for name in ("gateway", "rest", "ui", "bucket")}
    for each in pods.values():
        assert each["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert each["spec"]["restartPolicy"] == "Never"
    assert pods["demo-seedvr2-test-gateway"]["spec"]["containers"][0]["command"][-1] == (
        "grpc://demo-seedvr2-gateway.video.svc:50051/seedvr2.v1.Gateway"
    )


def test_budgets_let_one_pod_go_at_a_time():
    budgets = {each["metadata"]["name"]: each["spec"] for each in render().all("PodDisruptionBudget")}
    assert set(budgets) == {"demo-seedvr2-gateway", "demo-seedvr2-ui", "demo-seedvr2-inference-cpu"}
    assert all(each["maxUnavailable"] == 1 for each in budgets.values())
    assert not render({"gateway": {"podDisruptionBudget": {"enabled": False}}}).all("PodDisruptionBudget")[2:]


def test_images_come_from_one_registry_with_one_tag_or_by_digest():
    digest = "sha256:" + "a" * 64
    values = {"image": {"registry": "registry.example/x", "tag": "1.2.3"}, "gateway": {"image": {"digest": digest}}}
    assert box("ui", values)["image"] == "registry.example/x/seedvr2-ui:1.2.3"
    assert box("gateway", values)["image"] == f"registry.example/x/seedvr2-gateway@{digest}"
    values["global"] = {"imageRegistry": "mirror.example", "imagePullSecrets": ["pull"]}
    assert box("ui", values)["image"] == "mirror.example/seedvr2-ui:1.2.3"
    assert pod("ui", values)["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_labels_are_the_standard_ones_and_those_of_users_on_every_object():
    for each in render({"commonLabels": {"team": "video"}, "commonAnnotations": {"owner": "me"}}).objects:
        labels = each["metadata"]["labels"]
        assert labels["team"] == "video"
        assert each["metadata"]["annotations"]["owner"] == "me"
        for name in ("name", "instance", "version", "managed-by", "part-of"):
            assert f"app.kubernetes.io/{name}" in labels
        assert each["metadata"]["namespace"] == "video"


def test_selectors_do_not_change_with_labels_of_users():
    one, other = (render({"commonLabels": {"a": a}}).get("Deployment", "gateway")["spec"]["selector"] for a in "xy")
    assert one == other


def test_names_can_be_chosen_and_stay_short_enough():
    rendered = render({"fullnameOverride": "a" * 60, "inference": {"pools": [{"name": "p" * 20}]}})
    assert max(len(each["metadata"]["name"]) for each in rendered.objects) <= 63


def test_objects_of_users_can_use_the_charts_own_templates():
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": '{{ include "seedvr2.fullname" . }}-more'}}
    names = {each["metadata"]["name"] for each in render({"extraObjects": [extra, "kind: A\nmetadata: {name: b}"]}).objects}
    assert {"demo-seedvr2-more", "b"} <= names


TLS = {"existingSecret": "gateway-tls", "clientCaSecret": "clients-ca", "clientSecret": "page-client"}


def test_the_page_shows_a_certificate_to_a_gateway_that_wants_one():
    template = render({"gateway": {"tls": {**TLS, "caSecret": "our-ca"}}}).pods()["demo-seedvr2-ui"]
    page, volumes = container(template, "ui"), {each["name"]: each for each in template["spec"]["volumes"]}
    mounted = {each["name"]: each["mountPath"] for each in page["volumeMounts"]}
    said = variables(page)
    assert said["SEEDVR2_UI_GATEWAY_CERTIFICATE_FILE"] == f"{mounted['gateway-client']}/tls.crt"
    assert said["SEEDVR2_UI_GATEWAY_KEY_FILE"] == f"{mounted['gateway-client']}/tls.key"
    assert volumes["gateway-client"]["secret"]["secretName"] == "page-client"
    assert volumes["gateway-ca"]["secret"]["secretName"] == "our-ca"
    assert [item["key"] for item in volumes["gateway-ca"]["secret"]["items"]] == ["ca.crt"], "never the gateway's key"


def test_helm_test_speaks_tls_to_a_gateway_that_does():
    def commands(**tls: str) -> dict[str, list[str]]:
        pods = render({"gateway": {"tls": tls}, "ui": {"enabled": False}}).all("Pod")
        return {pod["metadata"]["name"].rpartition("-")[2]: pod["spec"]["containers"][0]["command"] for pod in pods}

    assert [command[-1].partition(":")[0] for command in commands().values()] == ["grpc", "http"]
    own = commands(existingSecret="gateway-tls")
    assert [command[-1].partition(":")[0] for command in own.values()] == ["grpcs", "https"]
    assert all("--ca" in command and "--key" not in command for command in own.values())
    assert all("--key" in command for command in commands(**TLS).values())
    assert commands(existingSecret="a", clientCaSecret="b") == {}, "it has no certificate to show"


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"clientCaSecret": "a", "existingSecret": "b"}, "gateway.tls.clientSecret"),
        ({"clientCaSecret": "a"}, "need gateway.tls.existingSecret"),
        ({"clientSecret": "a"}, "need gateway.tls.existingSecret"),
    ],
)
def test_half_of_tls_is_refused(tls: Object, words: str):
    with pytest.raises(Refused, match=words):
        render({"gateway": {"tls": tls}})


def ports(rendered: Rendered, name: str) -> dict[str, str]:
    """How a Service's ports are spoken to, by name."""
    spec = rendered.get("Service", name)["spec"]
    return {port["name"]: port.get("appProtocol", "") for port in spec["ports"]}


def test_services_say_how_they_are_spoken_to():
    plain, secured = render(), render({"gateway": {"tls": {"existingSecret": "a"}}, "ui": {"tls": {"existingSecret": "b"}}})
    assert ports(plain, "gateway") == {"grpc": "kubernetes.io/h2c", "rest": "http", "metrics": ""}
    assert ports(secured, "gateway") == {"grpc": "https", "rest": "https", "metrics": ""}
    assert (ports(plain, "ui"), ports(secured, "ui")) == ({"http": "http"}, {"http": "https"})


def test_a_page_with_tls_is_probed_scraped_and_tested_by_it():
    values: Object = {"ui": {"tls": {"existingSecret": "page"}}, "metrics": {"serviceMonitor": {"enabled": True}}}
    rendered = render(values)
    page = container(rendered.pods()["demo-seedvr2-ui"], "ui")
    assert variables(page)["SEEDVR2_UI_TLS_CERTIFICATE_FILE"] == "/run/seedvr2/tls/tls.crt"
    assert {page[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("startup", "readiness", "liveness")} == {"HTTPS"}
    (endpoint,) = rendered.get("ServiceMonitor", "ui")["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", "demo-seedvr2-ui.video.svc")
    command = rendered.get("Pod", "test-ui")["spec"]["containers"][0]["command"]
    assert command[-3:] == ["--ca", "/run/seedvr2/ca/ca.crt", "https://demo-seedvr2-ui.video.svc:80/readyz"]


def test_every_service_sends_its_spans():
    rendered = render({"tracing": {"settings": {"endpoint": "http://collector:4317"}}})
    for name in ("ui", "gateway", "inference-cpu"):
        (box,) = rendered.pods()[f"demo-seedvr2-{name}"]["spec"]["containers"]
        assert variables(box)["SEEDVR2_TRACING_ENDPOINT"] == "http://collector:4317", name
    for component in ("ui", "gateway", "inference"):
        out = rendered.get("NetworkPolicy", component)["spec"]["egress"]
        assert any({"port": 4317, "protocol": "TCP"} in rule["ports"] for rule in out), component


def test_what_users_add_to_pods_is_there():
    more: Object = {
        "extraInitContainers": [{"name": "first", "image": "i"}],
        "extraPodSpec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3.internal"]}]},
    }
    rendered = render({"ui": more, "gateway": more, "inference": {"defaults": more}})
    for name in ("ui", "gateway", "inference-cpu"):
        spec = rendered.pods()[f"demo-seedvr2-{name}"]["spec"]
        assert [each["name"] for each in spec["initContainers"]] == ["first"], name
        assert spec["hostAliases"][0]["hostnames"] == ["s3.internal"], name


def test_sources_on_the_web_and_in_buckets_are_allowed_by_values():
    gateway: Object = {"webSettings": {"sources": True}, "bucketSettings": {"endpoint": "https://s3", "sources": ["films/"]}}
    said = variables(box("gateway", {"gateway": gateway}))
    assert said["SEEDVR2_WEB_SOURCES"] == "true"
    assert (said["SEEDVR2_BUCKETS_ENDPOINT"], said["SEEDVR2_BUCKETS_SOURCES"]) == ("https://s3", "films/")
