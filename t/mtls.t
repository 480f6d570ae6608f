# Catches: a client certificate that is not the tenant it names; none, or one of
# another authority, that is; a tenant by certificate who has no limits.

use strict;
use warnings;
use lib 't/lib';
use LLM;
use Test::More;

my $t = LLM->new(no_nginx => 1, engine => [qw(--device null --model_name m)], workers => 1,
    location => 'llm_tenant_key $tenant_of;');
my $d = $t->{dir};
sub run { system("$_[0] >/dev/null 2>&1") == 0 or die "$_[0] failed" }
for my $ca (qw(ours theirs)) {
    run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        . " -subj /CN=$ca -keyout $d/$ca.key -out $d/$ca.crt");
}
for (['acme', 'ours'], ['other', 'ours'], ['stranger', 'ours'], ['forged', 'theirs']) {
    my ($name, $ca) = @$_;
    my $cn = $name eq 'forged' ? 'acme' : $name;
    run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=x/CN=$cn"
        . " -keyout $d/$name.key -out $d/$name.csr");
    run("openssl x509 -req -in $d/$name.csr -CA $d/$ca.crt -CAkey $d/$ca.key -CAcreateserial"
        . " -days 2 -out $d/$name.crt");
}
chmod 0644, glob "$d/*.key";
$t->{conf} = <<'CONF';
    map $ssl_client_s_dn $tenant_of {
        default "";
        "CN=acme,O=x" acme;
        "CN=other,O=x" other;
    }
    llm_tenant acme { requests 60 burst=2; }
CONF
$t->{server} = "ssl_client_certificate $d/ours.crt; ssl_verify_client optional;\n";
$t->start_nginx;
$t->wait_ready;

sub ask {
    my ($who) = @_;
    my $out = $t->curl('-w', ' %{http_code}', $who ? ('--cert', "$d/$who.crt", '--key', "$d/$who.key") : (),
        '-H', 'Content-Type: application/json', '-d', LLM->encode({ model => 'm', prompt => 'x',
            max_tokens => 2 }), $t->https('/v1/completions'));
    return $out =~ / (\d+)$/ ? $1 : $out;
}
is(join(' ', map { ask('acme') } 1 .. 3), '200 200 429', 'its limits are those of the tenant');
is(ask('other'), 200, 'another tenant');
is(ask('stranger'), 401, 'a certificate that is no tenant');
is(ask(''), 401, 'none');
is(ask('forged'), 400, "another authority's");

$t->done;
