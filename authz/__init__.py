"""External authorization: may this request pass, and as whom? (`envoy.service.auth.v3.Authorization/Check`)."""
