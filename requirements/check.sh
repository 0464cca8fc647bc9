# Called by make: is there a Python 3.11 and a Java that Spark can use? One clear line if not.
found=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found=none
if [ "$found" != "3.11" ]; then
    echo "deepintuit: expected Python 3.11 as '$PYTHON', found $found: install python3.11 with python3.11-venv, or say make PYTHON=/path/to/python3.11" >&2
    exit 2
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
case "$version" in
    17 | 21) ;;
    *)
        echo "deepintuit: expected Java 17 or 21 as '$java', found ${version:-none}: install openjdk-17-jre-headless, or set JAVA_HOME" >&2
        exit 2
        ;;
esac
if ! "$java" --list-modules 2>/dev/null | grep -q '^jdk.incubator.vector'; then
    echo "deepintuit: this Java ('$java') lacks the module jdk.incubator.vector that Spark needs: install a whole JRE, for example openjdk-17-jre-headless" >&2
    exit 2
fi
